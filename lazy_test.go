// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// lazily returns a Lazy for cert that counts how often it is opened.
func lazily(cert tls.Certificate, opened *atomic.Int32, names ...string) keyturn.Lazy {
	return keyturn.Lazy{Names: names, Open: func() (tls.Certificate, error) {
		opened.Add(1)
		return cert, nil
	}}
}

func load(t testing.TB, store *keyturn.Store, id string, l keyturn.Lazy) {
	t.Helper()
	if err := store.Load(id, l); err != nil {
		t.Fatal(err)
	}
}

// bad returns a Lazy that cannot be opened.
func bad(names ...string) keyturn.Lazy {
	return keyturn.Lazy{Names: names, Open: func() (tls.Certificate, error) { return tls.Certificate{}, errBad }}
}

var errBad = errors.New("seal is broken")

func TestLazyIsOpenedOnce(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	var opened, other atomic.Int32
	cert := root.leaf(t, names("a.test", "*.b.test"))
	l := lazily(cert, &opened, "A.test", "*.b.test.")
	l.Obtained, l.NotBefore, l.NotAfter = time.UnixMicro(1), time.Unix(2, 0), time.Unix(3, 0)
	load(t, &store, "id", l)
	load(t, &store, "other", lazily(root.leaf(t, names("c.test")), &other, "c.test"))
	info, _ := store.Info("id")
	if got, want := fmt.Sprint(info.Names, info.Open, info.Obtained.UnixMicro(), info.NotBefore.Unix(), info.NotAfter.Unix()),
		"[a.test *.b.test] false 1 2 3"; got != want {
		t.Errorf("Info before = %s, want %s", got, want)
	}
	info, _ = store.Info("other")
	if !info.Obtained.IsZero() || !info.NotBefore.IsZero() || !info.NotAfter.IsZero() {
		t.Errorf("Info without times = %+v", info)
	}

	var wg sync.WaitGroup
	got := make([]*tls.Certificate, 50)
	for i := range got {
		wg.Go(func() {
			name := []string{"a.test", "x.b.test"}[i%2]
			var err error
			if got[i], err = store.GetCertificate(&tls.ClientHelloInfo{ServerName: name}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, c := range got {
		if c != got[0] || c == nil || c.Leaf == nil {
			t.Fatal("handshakes at once got different certificates")
		}
	}
	if opened.Load() != 1 || other.Load() != 0 {
		t.Errorf("opened %d times, and the other %d times", opened.Load(), other.Load())
	}
	info, _ = store.Info("id")
	if !info.Open || !info.NotAfter.Equal(got[0].Leaf.NotAfter) || info.KeyType != x509.ECDSA || info.Obtained.UnixMicro() != 1 {
		t.Errorf("Info after = %+v", info)
	}
	if cert, ok := store.Get("other"); !ok || cert.Leaf == nil || other.Load() != 1 {
		t.Error("Get does not open")
	}
}

func TestLoadRefuses(t *testing.T) {
	var store keyturn.Store
	root := newRoot(t, "root")
	put(t, &store, "id", root.leaf(t, names("a.test")))
	for _, test := range []struct {
		id   string
		l    keyturn.Lazy
		want error
		says string
	}{
		{"", bad("b.test"), keyturn.ErrEmpty, "id is empty"},
		{"id", keyturn.Lazy{Names: []string{"b.test"}}, nil, "no Open"},
		{"id", bad("b.test", "a b"), keyturn.ErrBadName, `"a b"`},
		{"id", bad("bücher.test"), keyturn.ErrBadName, "ASCII"},
		{"id", bad(""), keyturn.ErrBadName, `""`},
		{"id", bad("a.*.test"), keyturn.ErrBadName, "wildcard"},
		{"id", bad("*"), keyturn.ErrBadName, "wildcard"},
		{"id", bad("*.*.test"), keyturn.ErrBadName, "wildcard"},
		{"id", bad("fe80::1%eth0"), keyturn.ErrBadName, "address"},
		{"id", bad(strings.Repeat("a", 1<<20)), keyturn.ErrBadName, "aaa"},
		{"id", bad(make([]string, 1001)...), keyturn.ErrTooLarge, "1001 names"},
	} {
		err := store.Load(test.id, test.l)
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || len(err.Error()) > 600 {
			t.Errorf("Load(%q, %.60q) = %v, want %v with %s", test.id, test.l.Names, err, test.want, test.says)
		}
	}
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "a.test"}); got != "id" {
		t.Errorf("chose %q, what was served is not served any more", got)
	}
}

func TestLazyFallsBack(t *testing.T) {
	root := newRoot(t, "root")
	good := root.leaf(t, names("a.test", "old.test"))
	mismatched := root.leaf(t, names("a.test"))
	mismatched.PrivateKey = newKey(t, x509.ECDSA)
	for _, test := range []struct {
		what string
		cert tls.Certificate
		err  error
		want error
	}{
		{"an error", tls.Certificate{}, errBad, errBad},
		{"nothing", tls.Certificate{}, nil, keyturn.ErrEmpty},
		{"another key", mismatched, nil, keyturn.ErrKeyMismatch},
		{"another name", root.leaf(t, names("b.test")), nil, keyturn.ErrUncovered},
		{"a wildcard only", root.leaf(t, names("*.test")), nil, keyturn.ErrUncovered},
		{"for clients only", root.leaf(t, names("a.test", "*.c.test"), usages(x509.ExtKeyUsageClientAuth)), nil, keyturn.ErrWrongUsage},
	} {
		t.Run(test.what, func(t *testing.T) {
			var store keyturn.Store
			events := make(chan keyturn.Event, 10)
			defer store.Observe(events)()
			put(t, &store, "id", good)
			load(t, &store, "id", keyturn.Lazy{
				Names: []string{"a.test", "*.c.test"},
				Open:  func() (tls.Certificate, error) { return test.cert, test.err },
			})
			if got, _ := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "old.test"}); got != nil {
				t.Error("a name of before is still served before the fallback")
			}
			cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"})
			if err != nil || cert.Leaf.SerialNumber.Cmp(parse(t, good.Certificate[0]).SerialNumber) != 0 {
				t.Fatalf("GetCertificate = %v, %v, want the one of before", cert, err)
			}
			for name, want := range map[string]string{"a.test": "id", "old.test": "id", "x.c.test": ""} {
				if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: name}); got != want {
					t.Errorf("%s: chose %q after the fallback, want %q", name, got, want)
				}
			}
			var kinds []keyturn.EventKind
			for len(events) > 0 {
				e := <-events
				kinds = append(kinds, e.Kind)
				if e.Kind == keyturn.OpenFailed && (e.ID != "id" || !errors.Is(e.Err, test.want) || !strings.Contains(e.Err.Error(), `opening certificate "id"`)) {
					t.Errorf("observers hear %v", e.Err)
				}
			}
			if fmt.Sprint(kinds) != "[swapped swapped unknown open failed unknown]" {
				t.Errorf("events %v", kinds)
			}
		})
	}
}

func TestLazyWithNothingToFallBackTo(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "wildcard", root.leaf(t, names("*.test")))
	load(t, &store, "id", bad("a.test"))
	load(t, &store, "default", bad())
	store.SetDefault("default")
	for name, want := range map[string]string{"a.test": "wildcard", "a.b.test": ""} {
		if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: name}); got != want {
			t.Errorf("%s: chose %q, want %q", name, got, want)
		}
	}
	if store.Len() != 1 {
		t.Errorf("Len = %d", store.Len())
	}
	load(t, &store, "id", bad("a.test"))
	if _, ok := store.Get("id"); ok {
		t.Error("Get returns a bad certificate")
	}
	load(t, &store, "id", bad("a.test"))
	if !store.Remove("id") || store.Remove("id") {
		t.Error("Remove of what is not open")
	}
}

// Generations that are never opened pile up no memory, and however many bad ones there
// are, the last good one is reached.
func TestLazyFallsBackOverSeveral(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	var first, last atomic.Int32
	put(t, &store, "put", root.leaf(t, names("a.test")))
	load(t, &store, "loaded", lazily(root.leaf(t, names("b.test")), &first, "b.test"))
	for range 100 {
		load(t, &store, "put", bad("a.test"))
		load(t, &store, "loaded", bad("b.test"))
	}
	for name, want := range map[string]string{"a.test": "put", "b.test": "loaded"} {
		if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: name}); got != want {
			t.Errorf("%s: chose %q, want %q", name, got, want)
		}
	}
	load(t, &store, "loaded", lazily(root.leaf(t, names("b.test")), &last, "b.test"))
	load(t, &store, "loaded", bad("b.test"))
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "b.test"}); got != "loaded" || first.Load() != 1 || last.Load() != 1 {
		t.Errorf("chose %q, opened %d and %d times", got, first.Load(), last.Load())
	}
}

func TestLazyMayHaveExpired(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	var opened atomic.Int32
	expired := lazily(root.leaf(t, names("a.test"), validity(-2*time.Hour, -time.Hour)), &opened, "a.test")
	expired.NotAfter = time.Now().Add(-time.Hour)
	load(t, &store, "expired", expired)
	early := lazily(root.leaf(t, names("b.test"), validity(time.Hour, 2*time.Hour)), &opened, "b.test")
	load(t, &store, "early", early)
	for name, want := range map[string]string{"a.test": "expired", "b.test": "early"} {
		if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: name}); got != want {
			t.Errorf("%s: chose %q, want %q", name, got, want)
		}
	}

	// One that is valid is preferred, and what is not needed stays closed.
	opened.Store(0)
	load(t, &store, "expired", expired)
	valid := lazily(root.leafFor(t, newKey(t, x509.RSA), names("a.test")), new(atomic.Int32), "a.test")
	valid.KeyType = x509.RSA
	load(t, &store, "valid", valid)
	h := hello("a.test", tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256)
	if got, err := store.GetCertificate(h); err != nil || got.Leaf.PublicKeyAlgorithm != x509.RSA || opened.Load() != 0 {
		t.Errorf("chose %v, %v, and opened %d others", got, err, opened.Load())
	}
	// A client that does not support it needs the other.
	if got := chosen(t, &store, hello("a.test", tls.ECDSAWithP256AndSHA256)); got != "expired" || opened.Load() != 1 {
		t.Errorf("chose %q, opened %d", got, opened.Load())
	}
}

func TestLazyReplacedWhileOpening(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	newer := root.leaf(t, names("a.test"))
	load(t, &store, "id", keyturn.Lazy{Names: []string{"a.test"}, Open: func() (tls.Certificate, error) {
		put(t, &store, "id", newer)
		return tls.Certificate{}, errBad
	}})
	cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"})
	if err != nil || string(cert.Certificate[0]) != string(newer.Certificate[0]) {
		t.Errorf("GetCertificate = %v, %v, want the newer one", cert, err)
	}
}

func TestLazyPanics(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "id", root.leaf(t, names("a.test")))
	load(t, &store, "id", keyturn.Lazy{Names: []string{"a.test"}, Open: func() (tls.Certificate, error) { panic("oh") }})
	func() {
		defer func() {
			if recover() != "oh" {
				t.Error("the panic is lost")
			}
		}()
		store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"})
	}()
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "a.test"}); got != "id" {
		t.Errorf("chose %q after the panic", got)
	}
}
