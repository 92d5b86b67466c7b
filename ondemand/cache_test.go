// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// TestRestart serves what another process kept, with a dead issuer.
func TestRestart(t *testing.T) {
	ca := newFront(t, localca.Config{})
	dir := filepath.Join(t.TempDir(), "a", "certificates")
	open := func() *ondemand.Source {
		return &ondemand.Source{Issuer: ca, CommonName: "spiffe://example.org/web", Allow: ondemand.Names("*.example.com", "2001:db8::/32"), Cache: ondemand.Dir(dir)}
	}
	s := open()
	names := []string{"www.example.com", "spiffe://example.org/web", strings.Repeat("a.", 120) + "example.com"}
	names[2] = strings.Repeat("a", 60) + ".example.com"
	var before []*tls.Certificate
	for _, name := range names {
		cert, err := s.Certificate(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, cert)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ca.set(0, errDown)
	s = open()
	defer s.Close()
	for i, name := range names {
		cert, err := s.Certificate(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Leaf.Equal(before[i].Leaf) {
			t.Errorf("%s: another certificate after a restart", name)
		}
	}
	if n := ca.calls(); n != len(names) {
		t.Errorf("the issuer was asked %d times, want %d", n, len(names))
	}

	files, err := os.ReadDir(dir)
	if err != nil || len(files) != len(names) {
		t.Fatalf("%d files, want %d; %v", len(files), len(names), err)
	}
	for _, f := range files {
		if fi, err := f.Info(); err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), fi.Mode(), err)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if fi, err := os.Stat(d); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", d, fi.Mode(), err)
		}
	}
}

// TestUnusable counts what cannot be served as nothing.
func TestUnusable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: 24 * time.Hour})
		encoded := func(name string, s *ondemand.Source) []byte {
			s.Issuer, s.Allow = ca, anything
			data, err := ondemand.Encode(mustGet(t, s, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return data
		}
		old := encoded("www.example.com", &ondemand.Source{Lifetime: time.Hour})
		time.Sleep(2 * time.Hour)
		good := encoded("www.example.com", &ondemand.Source{})
		other := encoded("api.example.com", &ondemand.Source{})
		key, chain, _ := bytes.Cut(good, []byte("-----BEGIN CERT"))
		otherKey, _, _ := bytes.Cut(other, []byte("-----BEGIN CERT"))
		chain = append([]byte("-----BEGIN CERT"), chain...)

		for what, test := range map[string]struct {
			data   []byte
			issued int
			says   string
		}{
			"good":           {good, 0, ""},
			"empty":          {nil, 1, "of no use"},
			"junk":           {[]byte("junk"), 1, "of no use"},
			"cut short":      {good[:len(good)-100], 1, "it is not whole"},
			"a block broken": {bytes.Replace(good, []byte("-----BEGIN CERT"), []byte("-----BEGIN CART"), 1), 1, "of no use"},
			"no key":         {chain, 1, "of no use"},
			"no chain":       {key, 1, "of no use"},
			"other key":      {append(slices.Clone(otherKey), chain...), 1, "does not match"},
			"another's":      {other, 1, "it is not for www.example.com"},
			"ended":          {old, 1, ""},
			"other names":    {encoded("www.example.com", &ondemand.Source{CommonName: "old.internal"}), 1, ""},
			"other key typ":  {encoded("www.example.com", &ondemand.Source{KeyType: issuer.Ed25519}), 1, ""},
		} {
			var log bytes.Buffer
			cache := &memory{kept: map[string][]byte{"www.example.com": test.data}}
			asked := ca.calls()
			s := &ondemand.Source{Issuer: ca, Allow: anything, Cache: cache, Logger: slog.New(slog.NewTextHandler(&log, nil))}
			mustGet(t, s, "www.example.com")
			time.Sleep(time.Second) // what is not as it should be is renewed at once
			synctest.Wait()
			has(t, mustGet(t, s, "www.example.com"), "www.example.com")
			if n := ca.calls() - asked; n != test.issued {
				t.Errorf("%s: %d were issued, want %d", what, n, test.issued)
			}
			if said := log.String(); !strings.Contains(said, test.says) || strings.Contains(said, "BEGIN") {
				t.Errorf("%s: logged %q, want %q", what, said, test.says)
			}
			if test.issued > 0 && bytes.Equal(cache.kept["www.example.com"], test.data) {
				t.Errorf("%s: it is still kept", what)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A memory is a Cache of one's own.
type memory struct {
	mu    sync.Mutex
	kept  map[string][]byte
	fault error
	slow  time.Duration
}

func (m *memory) Get(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		return nil, m.fault
	}
	data, ok := m.kept[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m *memory) Put(_ context.Context, name string, data []byte) error {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == nil {
		m.kept[name] = data
	}
	return m.fault
}

func (m *memory) Delete(_ context.Context, name string) error {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, name)
	return m.fault
}

// TestBrokenCache goes on without one.
func TestBrokenCache(t *testing.T) {
	ca := newFront(t, localca.Config{})
	var log bytes.Buffer
	s := &ondemand.Source{Issuer: ca, Allow: anything, Cache: &memory{fault: errDown}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	cert := mustGet(t, s, "www.example.com")
	if mustGet(t, s, "www.example.com") != cert {
		t.Error("another certificate")
	}
	if err := s.Remove(t.Context(), "www.example.com"); !errors.Is(err, errDown) {
		t.Errorf("removing: %v", err)
	}
	if mustGet(t, s, "www.example.com") == cert {
		t.Error("it is served after it was removed")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if said := log.String(); !strings.Contains(said, "cannot be kept") || !strings.Contains(said, "is of no use") {
		t.Errorf("logged %s", said)
	}
}

// TestHangingCache issues without one, in time.
func TestHangingCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		s := &ondemand.Source{Issuer: ca, Allow: anything, Cache: hanging{}}
		start := time.Now()
		mustGet(t, s, "www.example.com")
		if waited := time.Since(start); waited != 15*time.Second {
			t.Errorf("the client waited %s for the cache, want a quarter of a minute", waited)
		}
		if err := s.Close(); err != nil || time.Since(start) != 15*time.Second {
			t.Errorf("closing took until %s, %v", time.Since(start), err)
		}
	})
}

// A hanging Cache does not answer.
type hanging struct{}

func (hanging) Get(ctx context.Context, _ string) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hanging) Put(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hanging) Delete(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestHardwareKey keeps no key that cannot be encoded.
func TestHardwareKey(t *testing.T) {
	ca := newFront(t, localca.Config{})
	cache := &memory{kept: make(map[string][]byte)}
	s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Cache: cache, NewKey: func() (crypto.Signer, error) {
		key, err := issuer.ECDSAP256.Generate()
		return struct{ crypto.Signer }{key}, err
	}}
	mustGet(t, s, "web.internal")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(cache.kept) > 0 {
		t.Error("something was kept")
	}
}

// TestShared renews in one process of two.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: time.Hour})
		cache := &memory{kept: make(map[string][]byte)}
		a := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Cache: cache}
		defer a.Close()
		mustGet(t, a, "web.internal")
		synctest.Wait()
		b := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Cache: cache}
		defer b.Close()
		mustGet(t, b, "web.internal")
		ca.once(t, 1, "web.internal")
		time.Sleep(41 * time.Minute)
		synctest.Wait()
		if one, two := mustGet(t, a, "web.internal"), mustGet(t, b, "web.internal"); !one.Leaf.Equal(two.Leaf) {
			t.Error("they have different certificates")
		}
		ca.once(t, 2, "web.internal")
	})
}

// TestRemove has another certificate issued, and waits for what is under way.
func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		cache := &memory{kept: make(map[string][]byte), slow: time.Second}
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: anything, Cache: cache}
		defer s.Close()
		for _, name := range []string{"web.internal", "www.example.com"} {
			first := mustGet(t, s, name) // and it is being kept
			if err := s.Remove(t.Context(), strings.ToUpper(name)); err != nil {
				t.Fatal(err)
			}
			if len(cache.kept) != 0 {
				t.Error("it is still kept")
			}
			second := mustGet(t, s, name)
			if second == first {
				t.Error("it is still served")
			}
			time.Sleep(2 * time.Second)
			removed := make(chan error)
			go func() { removed <- s.Remove(t.Context(), name) }()
			synctest.Wait() // it is being removed
			if mustGet(t, s, name) == second {
				t.Error("it is served while it is removed")
			}
			if err := errors.Join(<-removed, s.Remove(t.Context(), name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Remove(t.Context(), "never.example.com"); err != nil {
			t.Error(err)
		}
		if n := s.InMemory(); n != 1 {
			t.Errorf("%d names are in memory", n)
		}
		ca.set(10*time.Second, nil)
		go func() { _, _ = s.GetCertificate(hello("slow.example.com")) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Remove(ctx, "slow.example.com"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want that it waits", err)
		}
		if err := s.Remove(t.Context(), "a b"); err == nil {
			t.Error("what is no name was removed")
		}
	})
}

// TestDir is the directory alone.
func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	cache := ondemand.Dir(path)
	ctx := t.Context()
	if _, err := cache.Get(ctx, "a.example"); !errors.Is(err, ondemand.ErrCacheMiss) {
		t.Errorf("%v, want a miss", err)
	}
	names := []string{"a.example", "*.a.example", "10.0.0.1", "2001:db8::1", "spiffe://example.org/web", "../../etc/passwd", "", ".", "..", strings.Repeat("a.", 126) + "b", "A.example"}
	for _, name := range names {
		if err := cache.Put(ctx, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if data, err := cache.Get(ctx, name); err != nil || string(data) != name {
			t.Errorf("%q: %q, %v", name, data, err)
		}
	}
	if files, err := os.ReadDir(path); err != nil || len(files) != len(names) {
		t.Errorf("%d files, want %d; %v", len(files), len(names), err)
	}
	if err := errors.Join(cache.Delete(ctx, "a.example"), cache.Delete(ctx, "a.example"), cache.Delete(ctx, "never")); err != nil {
		t.Error(err)
	}
	if _, err := cache.Get(ctx, "a.example"); !errors.Is(err, ondemand.ErrCacheMiss) {
		t.Errorf("%v, want a miss", err)
	}

	// What others could have put there, or seen, is not taken.
	if err := os.Chmod(filepath.Join(path, "10.0.0.1.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Get(ctx, "10.0.0.1"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := os.Chmod(path, 0o770); err != nil {
		t.Fatal(err)
	}
	_, err := cache.Get(ctx, "2001:db8::1")
	for _, err := range []error{err, cache.Put(ctx, "a.example", nil)} {
		if err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("a directory that others can write: %v", err)
		}
	}
}

// TestLeftovers removes what a crash left, and nothing that is being written.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, ".a.example.pem.1.tmp"), filepath.Join(dir, ".b.example.pem.2.tmp")
	for _, f := range []string{old, young} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	then := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(old, then, then); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ondemand.Dir(dir).Put(t.Context(), "a.example", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Error(err)
	}
}
