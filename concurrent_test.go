// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn"
)

// While one certificate is replaced as fast as can be, and others come and go so that
// the tables are built anew, every choice yields the certificate of a Put that had
// returned when the choice began, or a later one: whole, and never none.
func TestReplacingWhileChoosing(t *testing.T) {
	const generations = 300
	root := newRoot(t, "root")
	certs := make([]tls.Certificate, generations)
	number := map[string]int{} // of a certificate's bytes
	for i := range certs {
		certs[i] = root.leaf(t, names("a.test", "*.b.test", "192.0.2.1"))
		number[string(certs[i].Certificate[0])] = i
	}
	asked := []*tls.ClientHelloInfo{
		{ServerName: "a.test"}, {ServerName: "A.test."}, {ServerName: "x.b.test"}, {ServerName: "192.0.2.1"}, {ServerName: "unknown.test"},
	}
	request := &tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}

	var store keyturn.Store
	put(t, &store, "id", certs[0])
	store.SetDefault("id")
	var returned atomic.Int64 // the number of the last Put that returned
	check := func(what string, begun int64, cert *tls.Certificate, err error) {
		if err != nil || cert == nil || len(cert.Certificate) == 0 {
			t.Errorf("%s: got %v, %v", what, cert, err)
			return
		}
		n, known := number[string(cert.Certificate[0])]
		if !known || int64(n) < begun {
			t.Errorf("%s: got number %d after number %d was put", what, n, begun)
		}
		if !certs[n].PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }).Equal(cert.PrivateKey) || string(cert.Leaf.Raw) != string(cert.Certificate[0]) {
			t.Errorf("%s: number %d has the key or leaf of another", what, n)
		}
	}

	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for j := i; ; j++ {
				select {
				case <-done:
					return
				default:
				}
				hello, begun := asked[j%len(asked)], returned.Load()
				cert, err := store.GetCertificate(hello)
				check(hello.ServerName, begun, cert, err)
				if j%16 == 0 {
					begun = returned.Load()
					cert, err = store.GetClientCertificate(request)
					check("client", begun, cert, err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			// 500 names come, then they go again.
			if id := fmt.Sprint("other", i%500); i/500%2 == 0 {
				load(t, &store, id, bad(id+".test", "*."+id+".test"))
			} else {
				store.Remove(id)
			}
		}
	})
	for i, cert := range certs[1:] {
		put(t, &store, "id", cert)
		returned.Store(int64(i + 1))
	}
	close(done)
	wg.Wait()
}

// While an id is loaded with good and bad ones, and opened by handshakes, a choice never
// fails: there is always a good one to fall back to.
func TestLoadingWhileChoosing(t *testing.T) {
	root := newRoot(t, "root")
	cert := root.leaf(t, names("a.test"))
	var store keyturn.Store
	put(t, &store, "id", cert)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"}); err != nil || cert == nil {
					t.Errorf("GetCertificate = %v, %v", cert, err)
				}
			}
		})
	}
	var opened atomic.Int32
	for i := range 1000 {
		if i%3 == 0 {
			load(t, &store, "id", lazily(cert, &opened, "a.test"))
		} else {
			load(t, &store, "id", bad("a.test"))
		}
	}
	close(done)
	wg.Wait()
}
