// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// TestThreshold renews with the time left that is configured, or with a third.
func TestThreshold(t *testing.T) {
	const life = 90 * time.Hour
	for _, test := range []struct{ before, least, most time.Duration }{
		{0, life * 2 / 3 * 97 / 100, life * 2 / 3},
		{time.Hour, 89*time.Hour - life/50, 89 * time.Hour},
		{60 * time.Hour, 30*time.Hour - life/50, 30 * time.Hour},
		{1000 * time.Hour, life / 50, life / 50}, // cut
	} {
		synctest.Test(t, func(t *testing.T) {
			ca := newFront(t, localca.Config{Lifetime: life})
			s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", RenewBefore: test.before}
			defer s.Close()
			first := mustGet(t, s, "web.internal")
			time.Sleep(test.least - 2*time.Second)
			synctest.Wait()
			if n := ca.calls(); n != 1 || mustGet(t, s, "web.internal") != first {
				t.Errorf("RenewBefore %s: renewed before %s", test.before, test.least)
			}
			time.Sleep(test.most - test.least + 4*time.Second)
			synctest.Wait()
			if n := ca.calls(); n != 2 || mustGet(t, s, "web.internal") == first {
				t.Errorf("RenewBefore %s: not renewed after %s", test.before, test.most)
			}
		})
	}
}

// TestRenewal serves the old certificate for as long as the new one takes.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		s := &ondemand.Source{Issuer: ca, Allow: anything}
		defer s.Close()
		first := mustGet(t, s, "www.example.com")
		ca.set(30*time.Second, nil)
		for ca.calls() == 1 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		start := time.Now()
		if cert := mustGet(t, s, "www.example.com"); cert != first || !time.Now().Equal(start) {
			t.Error("a handshake waited for a renewal, or got something else")
		}
		time.Sleep(time.Minute)
		if cert := mustGet(t, s, "www.example.com"); cert == first {
			t.Error("the renewal did not come")
		}
		ca.once(t, 2, "www.example.com")
	})
}

// TestUnwanted drops a name that nobody asks for any more.
func TestUnwanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: anything}
		defer s.Close()
		mustGet(t, s, "web.internal")
		mustGet(t, s, "www.example.com")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		counts := ca.counts()
		if n := counts["www.example.com"]; n > 2 {
			t.Errorf("issued %d times for a name that was asked for once", n)
		}
		if n := counts["web.internal"]; n < 24 {
			t.Errorf("the service's own certificate was issued %d times in 24 of its lives", n)
		}
		if n := s.InMemory(); n != 1 {
			t.Errorf("%d names are in memory, want the service's own", n)
		}
		mustGet(t, s, "www.example.com")
	})
}

// TestLateHandshake finds a renewal overdue that no timer saw to, since nobody had
// asked in time.
func TestLateHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		ca.set(2*time.Second, nil)
		s := &ondemand.Source{Issuer: ca, Allow: anything}
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Certificate(ctx, "www.example.com"); err == nil {
			t.Fatal("a certificate after no time")
		}
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		ca.once(t, 1, "www.example.com")
		first := mustGet(t, s, "www.example.com")
		time.Sleep(3 * time.Second)
		if mustGet(t, s, "www.example.com") == first {
			t.Error("the handshake did not bring about a renewal")
		}
		ca.once(t, 2, "www.example.com")
	})
}

// TestOutage takes the issuer away while certificates fall due: handshakes go on, and
// the renewals are made up for when it is back.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: 24 * time.Hour})
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: anything}
		defer s.Close()
		old := make(map[string]*tls.Certificate)
		for i := range 20 {
			name := fmt.Sprintf("%d.example.com", i)
			old[name] = mustGet(t, s, name)
		}
		ca.set(time.Second, errDown)
		for range 23 * 60 {
			time.Sleep(time.Minute)
			for name := range old {
				mustGet(t, s, name)
			}
		}
		failed := ca.calls()
		if failed < 5*20 || failed > 100*20 {
			t.Errorf("asked %d times in seven hours without an answer", failed)
		}
		ca.set(0, nil)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		for name, cert := range old {
			if mustGet(t, s, name) == cert {
				t.Errorf("%s was not renewed after the outage", name)
			}
		}
		if n := ca.calls() - failed; n != 20 {
			t.Errorf("%d issuances made up for 20", n)
		}
	})
}

// TestEnd fails when there is nothing valid any more, and recovers at the next handshake.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: 5 * time.Minute})
		s := &ondemand.Source{Issuer: ca, Allow: anything}
		defer s.Close()
		mustGet(t, s, "www.example.com")
		ca.set(0, errDown)
		for range 299 {
			time.Sleep(time.Second)
			mustGet(t, s, "www.example.com")
		}
		time.Sleep(2 * time.Second)
		fails(t, s, "www.example.com", "connection refused", "tried again after")
		ca.set(0, nil)
		time.Sleep(time.Minute)
		mustGet(t, s, "www.example.com")
	})
}

// TestFailure is the answer for a while, a longer one each time.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		ca.set(0, errDown)
		s := &ondemand.Source{Issuer: ca, Allow: anything}
		defer s.Close()
		asked := 0
		for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			asked++
			for range 10 {
				fails(t, s, "www.example.com", "connection refused")
			}
			time.Sleep(wait*time.Second - 1)
			fails(t, s, "www.example.com", "connection refused")
			if n := ca.calls(); n != asked {
				t.Fatalf("asked %d times before %s were over, want %d", n, wait*time.Second, asked)
			}
			time.Sleep(time.Nanosecond)
		}
		ca.set(0, nil)
		mustGet(t, s, "www.example.com")
	})
	for _, test := range []struct {
		err  error
		wait time.Duration
	}{
		{issuer.ErrRefused, time.Minute},
		{&issuer.Hint{After: time.Date(2000, 1, 1, 0, 0, 20, 0, time.UTC), Err: errDown}, 20 * time.Second},
		{&issuer.Hint{After: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), Err: errDown}, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			ca := newFront(t, localca.Config{})
			s := &ondemand.Source{Issuer: ca, CommonName: "web.internal"}
			defer s.Close()
			ca.set(0, test.err)
			if err := fails(t, s, "web.internal"); !errors.Is(err, test.err) {
				t.Error(err)
			}
			ca.set(0, nil)
			time.Sleep(test.wait - 1)
			fails(t, s, "web.internal")
			time.Sleep(2 * time.Nanosecond)
			synctest.Wait()
			mustGet(t, s, "web.internal")
		})
	}
}

// TestTimeout ends what an issuer does not answer.
func TestTimeout(t *testing.T) {
	for _, limit := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ca := newFront(t, localca.Config{})
			ca.set(24*time.Hour, nil)
			s := &ondemand.Source{Issuer: ca, Allow: anything, Timeout: limit}
			defer s.Close()
			start := time.Now()
			if err := fails(t, s, "www.example.com", "did not answer in time"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			want := limit
			if limit == 0 {
				want = time.Minute
			}
			if took := time.Since(start); took != want {
				t.Errorf("it took %s, want %s", took, want)
			}
		})
	}
}

// TestWithdrawn renews nothing that is not allowed any more.
func TestWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		var no error
		s := &ondemand.Source{Issuer: ca, Allow: func(context.Context, string) error { return no }}
		defer s.Close()
		first := mustGet(t, s, "www.example.com")
		no = errors.New("the customer has left")
		for range 59 {
			time.Sleep(time.Minute)
			synctest.Wait()
			mustGet(t, s, "www.example.com")
		}
		for range 30 { // while the failure is the answer, and after
			time.Sleep(10 * time.Second)
			_, err := s.GetCertificate(hello("www.example.com"))
			if time.Until(first.Leaf.NotAfter) < 0 && !errors.Is(err, ondemand.ErrNotAllowed) {
				t.Errorf("%v, want that it is not allowed", err)
			}
		}
		fails(t, s, "www.example.com", "the customer has left")
		ca.once(t, 1, "www.example.com")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := s.InMemory(); n != 0 {
			t.Errorf("%d names are in memory, want none", n)
		}
	})
}

// TestWithdrawnAfterFailure asks Allow again before the issuer is asked again.
func TestWithdrawnAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		ca.set(0, errDown)
		var no error
		s := &ondemand.Source{Issuer: ca, Allow: func(context.Context, string) error { return no }}
		defer s.Close()
		fails(t, s, "www.example.com", "connection refused")
		ca.set(0, nil)
		no = errors.New("the customer has left")
		time.Sleep(2 * time.Second)
		fails(t, s, "www.example.com", "the customer has left")
		ca.once(t, 1, "www.example.com")
	})
}

// TestOwnReturns has the service's own certificate back after an outage that outlasted it,
// before anybody asks for it.
func TestOwnReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal"}
		defer s.Close()
		mustGet(t, s, "web.internal")
		ca.set(0, errDown)
		time.Sleep(24 * time.Hour)
		fails(t, s, "web.internal", "connection refused")
		ca.set(0, nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		ca.set(0, errDown)
		mustGet(t, s, "web.internal")
	})
}

// TestClose ends what is under way and serves what is there.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		s := &ondemand.Source{Issuer: ca, Allow: anything}
		first := mustGet(t, s, "a.example.com")
		ca.set(30*time.Second, nil)
		failed := make(chan error)
		go func() {
			_, err := s.GetCertificate(hello("b.example.com"))
			failed <- err
		}()
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, ondemand.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
		if mustGet(t, s, "a.example.com") != first {
			t.Error("what was there is not served any more")
		}
		if err := fails(t, s, "c.example.com"); !errors.Is(err, ondemand.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := ca.calls(); n != 2 {
			t.Errorf("the issuer was asked %d times, want no renewal after Close", n)
		}
		fails(t, s, "a.example.com")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
