// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/acmetest"
)

// relay passes the connections of a listener on to where dial leads, until the test
// ends.
func relay(t *testing.T, l net.Listener, dial func() (net.Conn, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer from.Close()
				if to, err := dial(); err == nil { // else the caller sees an end
					join(ctx, from, to)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		all.Wait()
	})
}

// join copies between two connections until one of them ends, or the context.
func join(ctx context.Context, a, b net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = a.Close()
		_ = b.Close()
	})
	defer stop()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			defer cancel()
			_, _ = io.Copy(way[0], way[1]) // what is lost, the two ends find out
		})
	}
	both.Wait()
}

// relayPackets has a server answer what comes to p, until the test ends.
func relayPackets(t *testing.T, p net.PacketConn, server string) {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			question := make([]byte, 65535)
			n, from, err := p.ReadFrom(question)
			if err != nil {
				return
			}
			all.Go(func() {
				if answer, err := ask(server, question[:n]); err == nil { // a lost packet is asked for again
					_, _ = p.WriteTo(answer, from)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = p.Close()
		all.Wait()
	})
}

func ask(server string, question []byte) ([]byte, error) {
	conn, err := net.Dial("udp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	answer := make([]byte, 65535)
	n, err := conn.Read(answer)
	return answer[:n], err
}

// newFront starts a web server that is known as all of the hosts, and is the CA of
// each. The PEM certificate is what it is to be trusted by.
func newFront(t *testing.T, cas map[string]*acmetest.CA) (addr string, certificate []byte) {
	t.Helper()
	var hosts []string
	handlers := make(map[string]http.Handler)
	for host, ca := range cas {
		hosts, handlers[host] = append(hosts, host), asDirectory(t, ca)
	}
	slices.Sort(hosts)
	cert, err := keyturn.SelfSigned("Test", hosts...)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := handlers[r.Host]; h != nil {
			h.ServeHTTP(w, r)
		}
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), cert.Certificate[0]
}

// asDirectory passes requests on to a Pebble, which takes the name that it is asked
// by as its own.
func asDirectory(t *testing.T, ca *acmetest.CA) http.Handler {
	t.Helper()
	pebble, err := url.Parse(ca.Directory())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.WebPool()}}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = pebble.Scheme, pebble.Host
			if r.In.URL.Path == "/directory" {
				r.Out.URL.Path = pebble.Path
			}
		},
	}
}

// tunnel is an HTTP proxy through which everything leads to one place.
func tunnel(t *testing.T, addr string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "this proxy is for https", http.StatusMethodNotAllowed)
			return
		}
		to, err := net.Dial("tcp", addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		join(t.Context(), from, to)
	})
}
