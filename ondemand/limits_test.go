// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// get asks for names at once and returns what failed.
func get(s *ondemand.Source, names ...string) []error {
	var wait sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		wait.Go(func() { _, errs[i] = s.GetCertificate(hello(name)) })
	}
	wait.Wait()
	return errs
}

func list(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%d.example.com", i)
	}
	return names
}

// TestAtOnce and TestPerMinute have no more than the CA is promised.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		ca.set(time.Second, nil)
		s := &ondemand.Source{Issuer: ca, Allow: anything, MaxAtOnce: 3}
		defer s.Close()
		if err := errors.Join(get(s, list(20)...)...); err != nil {
			t.Error(err)
		}
		if ca.most != 3 {
			t.Errorf("%d at once, want 3", ca.most)
		}
	})
}

func TestPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		s := &ondemand.Source{Issuer: ca, Allow: anything, MaxPerMinute: 10, Timeout: 5 * time.Minute}
		defer s.Close()
		time.Sleep(time.Second)
		errs := get(s, list(25)...)
		var failed int
		for _, err := range errs {
			if err != nil {
				failed++
				if !strings.Contains(err.Error(), "10 others wait to be issued, and 10 a minute may begin") {
					t.Error(err)
				}
			}
		}
		if n := s.InMemory(); n != 20 {
			t.Errorf("%d names are in memory, want those that were issued", n)
		}
		if failed != 5 {
			t.Errorf("%d of 25 names were refused, want what is beyond 10 at once and 10 that wait", failed)
		}
		time.Sleep(30 * time.Second)
		for i := range 30 {
			mustGet(t, s, fmt.Sprintf("later%d.example.com", i))
		}
		for i := 10; i < len(ca.at); i++ {
			if between := ca.at[i].Sub(ca.at[i-10]); between < time.Minute {
				t.Errorf("issuance %d began %s after the tenth before it", i, between)
			}
		}
	})
}

// TestWaitingEnds has a client that waits for its turn give up.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		ca.set(40*time.Second, nil)
		s := &ondemand.Source{Issuer: ca, Allow: anything, MaxAtOnce: 1}
		defer s.Close()
		errs := get(s, list(3)...)
		var waited int
		for _, err := range errs {
			if err != nil && strings.Contains(err.Error(), "waiting to begin") {
				waited++
			}
		}
		if waited != 1 {
			t.Errorf("%d gave up before they began, want one of three: %v", waited, errors.Join(errs...))
		}
		ca.set(0, nil)
		mustGet(t, s, "www.example.com")
	})
}

// TestTurns renews while clients make up names as fast as they can.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: anything, MaxAtOnce: 1, MaxPerMinute: 30}
		defer s.Close()
		mustGet(t, s, "web.internal")
		ca.set(2*time.Second, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Minute)
		defer cancel()
		var flood sync.WaitGroup
		for i := range 40 {
			flood.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					_, _ = s.Certificate(ctx, fmt.Sprintf("%d-%d.example.com", i, n)) // most are refused
					time.Sleep(2 * time.Second)
				}
			})
		}
		flood.Wait()
		if n := ca.counts()["web.internal"]; n != 2 {
			t.Errorf("the service's own certificate was issued %d times, want one renewal within its life", n)
		}
	})
}

// TestFlood asks for names that nobody allows, and for more than are kept.
func TestFlood(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: ondemand.Names("*.example.com"), MaxNames: 20, MaxPerMinute: 1000}
	defer s.Close()
	own := mustGet(t, s, "web.internal")
	for i := range 20_000 {
		if _, err := s.GetCertificate(hello(fmt.Sprintf("%d.example.org", i))); !errors.Is(err, ondemand.ErrNotAllowed) {
			t.Fatal(err)
		}
	}
	if n := s.InMemory(); n != 1 {
		t.Fatalf("%d names are in memory after a flood of others", n)
	}
	for _, name := range list(100) {
		mustGet(t, s, name)
	}
	if n := s.InMemory(); n != 21 {
		t.Errorf("%d names are in memory, want 20 and the service's own", n)
	}
	if mustGet(t, s, "web.internal") != own {
		t.Error("the service's own certificate was dropped")
	}
}

// TestLeastUsed drops what failed, then what was not asked for the longest.
func TestLeastUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		s := &ondemand.Source{Issuer: ca, Allow: anything, MaxNames: 3}
		defer s.Close()
		for _, name := range []string{"a.example", "b.example"} {
			mustGet(t, s, name)
			time.Sleep(time.Second)
		}
		ca.set(0, errDown)
		fails(t, s, "c.example")
		ca.set(0, nil)
		mustGet(t, s, "a.example")
		time.Sleep(time.Second)
		mustGet(t, s, "d.example") // in the place of c, which has none
		mustGet(t, s, "a.example")
		mustGet(t, s, "b.example")
		if n := ca.calls(); n != 4 {
			t.Fatalf("%d issuances, want that none was dropped for one that failed", n)
		}
		time.Sleep(time.Second)
		mustGet(t, s, "a.example")
		mustGet(t, s, "d.example")
		mustGet(t, s, "e.example") // in the place of b
		mustGet(t, s, "a.example")
		mustGet(t, s, "d.example")
		if n := ca.calls(); n != 5 {
			t.Errorf("%d issuances, want that the names in use stayed", n)
		}
	})
}

// TestFull takes in no name while all there is room for are being issued.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		ca.set(time.Second, nil)
		s := &ondemand.Source{Issuer: ca, Allow: anything, MaxNames: 2}
		defer s.Close()
		var full int
		for _, err := range get(s, list(5)...) {
			if err != nil && strings.Contains(err.Error(), "as many names as MaxNames") {
				full++
			}
		}
		if full != 3 {
			t.Errorf("%d were refused, want 3 of 5", full)
		}
	})
}

// TestLog says why a name was refused once in a while, whatever clients do.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ca := newFront(t, localca.Config{})
		s := &ondemand.Source{Issuer: ca, Allow: ondemand.Names("*.example.com"), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		defer s.Close()
		lines := func() int { n := strings.Count(log.String(), "\n"); log.Reset(); return n }
		for range 100 {
			fails(t, s, "a\nlevel=ERROR.example.org")
		}
		if n := lines(); n != 1 {
			t.Errorf("%d lines for one name, want 1", n)
		}
		time.Sleep(11 * time.Minute)
		fails(t, s, "a\nlevel=ERROR.example.org")
		if said := log.String(); !strings.Contains(said, "unsaid=99") || lines() != 1 {
			t.Errorf("said %s, want how often it was left out", said)
		}
		for i := range 10_000 {
			fails(t, s, fmt.Sprintf("%d.example.org", i))
		}
		if n := lines(); n == 0 || n > 256 {
			t.Errorf("%d lines for 10,000 names", n)
		}
	})
}

// TestNoAllocation and no lock: what is there costs a look.
func TestNoAllocation(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: ondemand.Names("*.example.com", "10.0.0.0/8")}
	defer s.Close()
	request := &tls.CertificateRequestInfo{}
	for name, ask := range map[string]func() (*tls.Certificate, error){
		"a server name": func() func() (*tls.Certificate, error) {
			h := hello("www.example.com")
			return func() (*tls.Certificate, error) { return s.GetCertificate(h) }
		}(),
		"an address": func() func() (*tls.Certificate, error) {
			h := from("10.0.0.1")
			return func() (*tls.Certificate, error) { return s.GetCertificate(h) }
		}(),
		"a client's": func() (*tls.Certificate, error) { return s.GetClientCertificate(request) },
	} {
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := ask(); err != nil {
				t.Error(err)
			}
		})
		if allocs > 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func BenchmarkGetCertificate(b *testing.B) {
	ca := newFront(b, localca.Config{})
	s := &ondemand.Source{Issuer: ca, Allow: anything, MaxPerMinute: 10_000}
	defer s.Close()
	for _, name := range list(1000) {
		mustGet(b, s, name)
	}
	h := hello("500.example.com")
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.GetCertificate(h); err != nil {
				b.Error(err)
			}
		}
	})
}
