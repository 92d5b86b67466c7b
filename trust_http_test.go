// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/keyturn/keyturn"
)

// serveHTTP serves the names that clients asked for and were known by, and returns an address.
func serveHTTP(t *testing.T, config *tls.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		TLSConfig: config,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			client := "nobody"
			if len(r.TLS.PeerCertificates) > 0 {
				client = r.TLS.PeerCertificates[0].DNSNames[0]
			}
			fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName, " ", client)
		}),
	}
	done := make(chan error)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func get(transport *http.Transport, url string) (string, error) {
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// One process has two listeners and two destinations, each with a certificate, authorities
// and names of its own.
func TestTwoListenersTwoDestinations(t *testing.T) {
	type end struct {
		keyturn.CertAuthManager
	}
	roots := map[string]*authority{"a": newRoot(t, "a"), "b": newRoot(t, "b")}
	servers, clients, address := map[string]*end{}, map[string]*end{}, map[string]string{}
	for name, root := range roots {
		servers[name], clients[name] = new(end), new(end)
		servers[name].Update(root.leaf(t, names(name+".server.test")))
		servers[name].SetClientCAs(root.pool())
		servers[name].SetClientAuth(tls.RequireAndVerifyClientCert)
		clients[name].Update(root.leaf(t, names(name+".client.test")))
		clients[name].SetRootCAs(root.pool())
		clients[name].SetServerName(name + ".server.test")
		address[name] = serveHTTP(t, servers[name].ServerConfig())
	}
	for from, client := range clients {
		for to := range servers {
			for _, http2 := range []bool{false, true} {
				protocols := new(http.Protocols)
				protocols.SetHTTP1(!http2)
				protocols.SetHTTP2(http2)
				base, protocol := client.Store().ClientConfig(nil), "HTTP/1.1"
				if http2 {
					base.NextProtos, protocol = []string{"h2"}, "HTTP/2.0"
				}
				for how, transport := range map[string]*http.Transport{
					"Dialer":       {Protocols: protocols, DialTLSContext: client.Dialer(base, nil)},
					"ClientConfig": {Protocols: protocols, TLSClientConfig: client.ClientConfig("")},
				} {
					got, err := get(transport, "https://"+address[to])
					sent := ""
					if how == "Dialer" {
						sent = to + ".server.test"
					}
					want := fmt.Sprintf("%s %s %s.client.test", protocol, sent, from)
					if from == to && (err != nil || got != want) || from != to && err == nil {
						t.Errorf("%s from %s to %s: %q, %v; want %q", how, from, to, got, err, want)
					}
				}
			}
		}
	}
}

// An address as the destination has to be given to ClientConfig.
func TestClientConfigOfATransport(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "id", root.leaf(t, names("a.test", "127.0.0.1")))
	address := serveHTTP(t, store.ServerConfig())
	_, port, _ := net.SplitHostPort(address)
	var trust keyturn.Trust
	trust.SetRootCAs(root.pool())
	transport := func(name string) *http.Transport {
		return &http.Transport{
			TLSClientConfig: trust.ClientConfig(name),
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		}
	}
	for _, test := range []struct {
		name, host string
		want       error
	}{
		{"", "a.test", nil},
		{"a.test", "127.0.0.1", nil},
		{"127.0.0.1", "127.0.0.1", nil},
		{"", "127.0.0.1", keyturn.ErrNoServerName},
		{"", "c.test", errRefused},
	} {
		if _, err := get(transport(test.name), "https://"+test.host+":"+port); !fits(err, test.want) {
			t.Errorf("%q for %q: %v, want %v", test.name, test.host, err, test.want)
		}
	}
}
