// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkChoose compares the choice of a certificate with the least that could be
// done: a map that nobody changes, of atomic pointers. For a wildcard and a miss the map
// is asked twice, as it has to be. Look at map and store of one line of work:
//
//	go test -run '^$' -bench Choose -count 6 .
func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{1, 1_000, 100_000, 1_000_000} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("host-%d.example.com", i)
			if i%2 == 1 {
				names[i] = fmt.Sprintf("*.zone-%d.example.com", i)
			}
		}
		if n == 1 {
			names = append(names, "*.zone.example.com")
		}
		plain := make(map[string]*atomic.Pointer[tls.Certificate], n)
		store := benchStore(b, names, func(name string, cert *tls.Certificate) {
			p := new(atomic.Pointer[tls.Certificate])
			p.Store(cert)
			plain[strings.TrimPrefix(name, "*")] = p
		})

		asked := map[string][]*tls.ClientHelloInfo{}
		for range 1 << 16 {
			i := rand.IntN(len(names)) &^ 1
			asked["hit"] = append(asked["hit"], &tls.ClientHelloInfo{ServerName: strings.Clone(names[i])})
			zone := names[(i+1)%len(names)][1:]
			asked["wildcard"] = append(asked["wildcard"], &tls.ClientHelloInfo{ServerName: fmt.Sprintf("host-%d", i) + zone})
			asked["miss"] = append(asked["miss"], &tls.ClientHelloInfo{ServerName: fmt.Sprintf("host-%d.example.net", i)})
		}
		for _, kind := range []string{"hit", "wildcard", "miss"} {
			hellos := asked[kind]
			b.Run(fmt.Sprintf("%s/%d/map", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					name := hellos[i%len(hellos)].ServerName
					p := plain[name]
					if p == nil {
						p = plain[name[strings.IndexByte(name, '.'):]]
					}
					if p != nil && p.Load() == nil {
						b.Fatal("no certificate")
					}
				}
			})
			b.Run(fmt.Sprintf("%s/%d/store", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if cert, err := store.GetCertificate(hellos[i%len(hellos)]); cert == nil || err != nil {
						b.Fatal(cert, err)
					}
				}
			})
		}
	}
}

// BenchmarkChooseAddr is the choice for a client that sent no server name.
func BenchmarkChooseAddr(b *testing.B) {
	store := benchStore(b, []string{"192.0.2.1"}, func(string, *tls.Certificate) {})
	hello := &tls.ClientHelloInfo{Conn: localConn{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.GetCertificate(hello); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplace replaces one of n, without the checks, whose cost is the
// cryptography's: it must not grow with n.
func BenchmarkReplace(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("host-%d.example.com", i)
			}
			store := benchStore(b, names, func(string, *tls.Certificate) {})
			open := func() (tls.Certificate, error) { return tls.Certificate{}, nil }
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				name := names[i*7919%n]
				if err := store.Load(name, Lazy{Names: []string{name}, Open: open}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory reports what 100,000 certificates held lazily take besides what
// their Open functions refer to.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("host-%d.example.com", i)
	}
	open := func() (tls.Certificate, error) { return tls.Certificate{}, nil }
	for b.Loop() {
		before := heap()
		store := new(Store)
		for i, name := range names {
			if err := store.Load(fmt.Sprintf("%011d", i), Lazy{Names: names[i : i+1], Open: open}); err != nil {
				b.Fatal(name, err)
			}
		}
		b.ReportMetric(float64(heap()-before)/n, "B/cert")
		if store.Len() != n {
			b.Fatal(store.Len())
		}
	}
}

// benchStore returns a store with a certificate for each name, and a default. The
// certificates are empty, as choosing does not look into them.
func benchStore(b *testing.B, names []string, each func(name string, cert *tls.Certificate)) *Store {
	b.Helper()
	store := new(Store)
	put := func(name string, keys ...string) {
		g := &generation{id: name, cert: new(tls.Certificate), keys: keys, server: true}
		g.alone.gen = g
		store.exchange(store.current(name), g)
		each(name, g.cert)
	}
	for _, name := range names {
		key, ok := keyOf(name)
		if !ok {
			b.Fatal(name)
		}
		put(name, key)
	}
	put("the default")
	store.SetDefault("the default")
	return store
}

type localConn struct {
	net.Conn
	addr net.Addr
}

func (c localConn) LocalAddr() net.Addr { return c.addr }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
