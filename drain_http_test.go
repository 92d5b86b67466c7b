// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

var protocols = map[string]bool{"HTTP/1.1": false, "HTTP/2": true} // and whether a client speaks HTTP/2

// A webServer is an HTTP server on loopback whose connections store knows. Its handler
// does as the documentation of Drain says.
type webServer struct {
	url    string
	store  *keyturn.Store
	closed chan struct{} // a value for each connection that has ended
}

func newWebServer(t *testing.T, config *tls.Config, store *keyturn.Store, answer http.HandlerFunc) *webServer {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &webServer{url: "https://" + inner.Addr().String(), store: store, closed: make(chan struct{}, 1000)}
	server := &http.Server{
		TLSConfig:   config,
		ConnContext: keyturn.ConnContext,
		ErrorLog:    log.New(io.Discard, "", 0), // clients give up handshakes that they do not need
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				w.closed <- struct{}{}
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if keyturn.Draining(r.Context()) {
				w.Header().Set("Connection", "close")
			}
			answer(w, r)
		}),
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.ServeTLS(store.Listener(inner), "", "") })
	t.Cleanup(func() { server.Close(); done.Wait() })
	return w
}

// A webClient has connections of its own.
type webClient struct {
	http.Client
	transport *http.Transport
}

func newWebClient(t *testing.T, config *tls.Config, http2 bool, dial keyturn.DialFunc) *webClient {
	c := &webClient{transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, DialContext: dial, MaxIdleConnsPerHost: 10}}
	c.Transport = c.transport
	t.Cleanup(c.transport.CloseIdleConnections)
	return c
}

// get returns the answer, the leaf that the server has shown, and whether the connection
// was used before.
func (c *webClient) get(t *testing.T, url string) (answer string, leaf *x509.Certificate, reused bool) {
	t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(request)
	if err != nil {
		t.Errorf("a request failed: %v", err)
		return "", nil, false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Errorf("an answer was cut off: %v", err)
	}
	return string(body), response.TLS.PeerCertificates[0], reused
}

// While clients go on with requests, a certificate is replaced and its connections are
// drained: all get to the new one, and no request fails.
func TestDrainOfHTTP(t *testing.T) {
	for protocol, http2 := range protocols {
		t.Run(protocol, func(t *testing.T) {
			root := newRoot(t, "root")
			var store keyturn.Store
			first, second := root.leaf(t, names("a.test")), root.leaf(t, names("a.test"))
			put(t, &store, "id", first)
			put(t, &store, "other", root.leaf(t, names("b.test")))
			server := newWebServer(t, store.ServerConfig(), &store, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
			var idlers keyturn.Store // knows the connections of clients that will be idle
			client := func(name string, dial keyturn.DialFunc) *webClient {
				return newWebClient(t, &tls.Config{RootCAs: root.pool(), ServerName: name}, http2, dial)
			}
			is := func(leaf *x509.Certificate, cert tls.Certificate) bool {
				return leaf != nil && string(leaf.Raw) == string(cert.Certificate[0])
			}

			const busy, idle = 8, 3
			var clients sync.WaitGroup
			turned := make(chan struct{}, busy)
			stop := make(chan struct{})
			var requests atomic.Int64
			begun := make(chan struct{}, busy)
			for range busy {
				c := client("a.test", nil)
				clients.Go(func() {
					for before := true; ; {
						answer, leaf, reused := c.get(t, server.url)
						if requests.Add(1); answer != map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2] {
							t.Errorf("served over %q", answer)
						}
						if leaf == nil {
							turned <- struct{}{} // an error was reported
							return
						}
						if !reused && is(leaf, first) {
							begun <- struct{}{}
						}
						if now := is(leaf, first); before && !now {
							turned <- struct{}{}
							before = false
						} else if !before && now {
							t.Error("a client got back to the old certificate")
						}
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			var lazy []*webClient
			for range idle {
				c := client("a.test", idlers.Dialer(nil))
				c.get(t, server.url)
				lazy = append(lazy, c)
			}
			other, later := client("b.test", nil), client("a.test", nil)
			other.get(t, server.url)
			for range busy {
				<-begun
			}

			put(t, &store, "id", second)
			later.get(t, server.url)
			drained := make(chan int)
			go func() { drained <- store.Drain("id", time.Hour) }()
			for range busy {
				<-turned
			}
			for range busy {
				<-server.closed
			}
			// Those that have no requests are not told, and are there until the end.
			if cut := store.Drain("id", 0); cut != idle {
				t.Errorf("cut %d connections, want the %d that are idle", cut, idle)
			}
			if cut := <-drained; cut != 0 {
				t.Errorf("cut %d more", cut)
			}
			// A request on a connection that ends just then fails in HTTP/2.
			if cut := idlers.DrainAll(time.Hour); cut != 0 {
				t.Errorf("%d clients did not notice", cut)
			}
			for _, c := range lazy {
				if _, leaf, _ := c.get(t, server.url); !is(leaf, second) {
					t.Error("a client that was idle does not get the new certificate")
				}
			}
			for _, c := range []*webClient{other, later} {
				if _, _, reused := c.get(t, server.url); !reused {
					t.Error("a connection ended that did not use the old certificate")
				}
			}
			close(stop)
			clients.Wait()
			t.Logf("%d requests", requests.Load())
		})
	}
}

// A noticed is a client's connection that tells when its user closes it.
type noticed struct {
	net.Conn
	closed chan<- struct{}
}

func (n noticed) Close() error {
	n.closed <- struct{}{}
	return n.Conn.Close()
}

// A client's idle connections end, and the next request shows its new certificate.
func TestDrainOfTransport(t *testing.T) {
	for protocol, http2 := range protocols {
		t.Run(protocol, func(t *testing.T) {
			root := newRoot(t, "root")
			var store, own keyturn.Store
			put(t, &store, "server", root.leaf(t, names("a.test")))
			var trust keyturn.Trust
			trust.SetClientCAs(root.pool())
			trust.SetClientAuth(tls.RequireAndVerifyClientCert)
			several := 4
			if http2 {
				several = 1 // there is one connection, however many requests
			}
			together := make(chan struct{})
			var waiting atomic.Int32
			server := newWebServer(t, trust.ServerConfig(store.ServerConfig()), &store, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/together" && waiting.Add(1) == int32(several) {
					close(together)
				}
				if r.URL.Path == "/together" {
					<-together
				}
				fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
			})
			replace := func() (serial string) {
				cert := root.leaf(t, names("client.test"))
				put(t, &own, "client", cert)
				return parse(t, cert.Certificate[0]).SerialNumber.String()
			}
			first := replace()
			config := own.ClientConfig(&tls.Config{RootCAs: root.pool(), ServerName: "a.test"})
			closed := make(chan struct{}, 100)
			client := newWebClient(t, config, http2, func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := own.Dialer(nil)(ctx, network, address)
				return noticed{conn, closed}, err
			})

			var requests sync.WaitGroup
			for range several {
				requests.Go(func() {
					if shown, _, _ := client.get(t, server.url+"/together"); shown != first {
						t.Errorf("showed %s, want %s", shown, first)
					}
				})
			}
			requests.Wait()
			second := replace()
			if shown, _, reused := client.get(t, server.url); shown != first || !reused {
				t.Errorf("showed %s, want %s on a connection that is open", shown, first)
			}
			if cut := own.Drain("client", 0); cut != several {
				t.Errorf("cut %d connections, want %d", cut, several)
			}
			for range several {
				<-closed // what is sent before fails in HTTP/2
			}
			if shown, _, reused := client.get(t, server.url); shown != second || reused {
				t.Errorf("showed %s, want %s on a new connection", shown, second)
			}

			// Who need not end connections that are in use can do without Drain.
			events := make(chan keyturn.Event, 1)
			cancel := own.Observe(events)
			defer cancel()
			third := replace()
			if e := <-events; e.Kind == keyturn.Swapped {
				client.transport.CloseIdleConnections()
			}
			if shown, _, _ := client.get(t, server.url); shown != third {
				t.Errorf("showed %s, want %s", shown, third)
			}
		})
	}
}
