// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn"
)

// asCA is the config by which a CA looks (RFC 8737, section 3).
func asCA(name string, version uint16) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: version}
}

// lookAsCA does a CA's handshake with a server that would serve whoever gets through, and
// returns what both saw.
func lookAsCA(client, server *tls.Config) (seen tls.ConnectionState, clientErr, serverErr error) {
	a, b := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer b.Close()
		conn := tls.Server(b, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			_, _ = io.WriteString(conn, "served")
		}
	})
	conn := tls.Client(a, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		seen = conn.ConnectionState()
		var one [1]byte
		if n, _ := conn.Read(one[:]); n > 0 {
			clientErr = errors.New("the server serves a CA")
		}
	}
	a.Close()
	wg.Wait()
	return seen, clientErr, serverErr
}

func TestChallenges(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "web", root.leaf(t, names("a.test", "b.test")))
	store.SetDefault("web")
	answer, other := root.leaf(t, names("a.test")), root.leaf(t, names("192.0.2.1"))
	challenges := map[string]*tls.Certificate{"A.test": &answer}
	store.SetChallenges("ca", challenges)
	store.SetChallenges("other", map[string]*tls.Certificate{"1.2.0.192.in-addr.arpa": &other})
	store.SetChallenges("another", map[string]*tls.Certificate{"b.test": &other})
	store.SetChallenges("another", nil)
	delete(challenges, "A.test") // the map is the caller's
	trust := new(keyturn.Trust)
	trust.SetClientCAs(root.pool())
	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
	if err := trust.SetPeerNames("client.test"); err != nil {
		t.Fatal(err)
	}
	clone := store.ServerConfig().Clone()
	clone.ClientAuth, clone.ClientCAs = tls.RequireAndVerifyClientCert, root.pool()
	clone.VerifyConnection = func(tls.ConnectionState) error { t.Error("a CA was taken for a client"); return nil }

	for what, server := range map[string]*tls.Config{
		"a Store": store.ServerConfig(), "a Store and a Trust": trust.ServerConfig(store.ServerConfig()), "a clone that asks clients": clone,
	} {
		for name, want := range map[string]*tls.Certificate{"a.test": &answer, "A.TEST": &answer, "1.2.0.192.in-addr.arpa": &other} {
			seen, err, refused := lookAsCA(asCA(name, 0), server)
			if err != nil || seen.NegotiatedProtocol != "acme-tls/1" || len(seen.PeerCertificates) == 0 ||
				!seen.PeerCertificates[0].Equal(parse(t, want.Certificate[0])) {
				t.Errorf("%s, %s: %v, %+v", what, name, err, seen)
			}
			if refused == nil || !strings.Contains(refused.Error(), "was answered by acme-tls/1") {
				t.Errorf("%s, %s: the server can go on with the connection: %v", what, name, refused)
			}
		}
		for why, client := range map[string]*tls.Config{
			"no challenge": asCA("b.test", 0), "an unknown name": asCA("other.test", 0), "no name": asCA("", 0), "TLS 1.2": asCA("a.test", tls.VersionTLS12),
		} {
			if seen, err, _ := lookAsCA(client, server); err == nil || seen.NegotiatedProtocol != "" {
				t.Errorf("%s, %s: %v, %+v", what, why, err, seen)
			}
		}
	}

	// All others see nothing of it.
	for version, v := range versions {
		c, _, err, _ := handshake(&tls.Config{RootCAs: root.pool(), ServerName: "a.test", NextProtos: []string{"h2"}, MaxVersion: v}, store.ServerConfig())
		if err != nil || c.NegotiatedProtocol != "h2" {
			t.Errorf("a client, %s: %v, %q", version, err, c.NegotiatedProtocol)
		}
	}
	store.SetChallenges("ca", nil)
	if seen, err, _ := lookAsCA(asCA("a.test", 0), store.ServerConfig()); err == nil {
		t.Errorf("answered without challenges: %+v", seen)
	}
}

// A config of the caller's own that speaks acme-tls/1 answers by its GetCertificate, and
// net/http serves nothing by it.
func TestChallengesOfAnOwnConfig(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "web", root.leaf(t, names("a.test", "b.test")))
	answer := root.leaf(t, names("a.test"))
	store.SetChallenges("ca", map[string]*tls.Certificate{"a.test": &answer})
	config := &tls.Config{GetCertificate: store.GetCertificate, NextProtos: []string{"http/1.1", keyturn.ACMETLS1}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was served") })}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	defer wg.Wait()
	defer server.Close()
	for version, v := range versions {
		conn, err := tls.Dial("tcp", l.Addr().String(), asCA("a.test", v))
		if err != nil {
			t.Fatal(version, err)
		}
		if s := conn.ConnectionState(); s.NegotiatedProtocol != "acme-tls/1" || !s.PeerCertificates[0].Equal(parse(t, answer.Certificate[0])) {
			t.Errorf("%s: %+v", version, s)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%s: the server goes on: %v", version, err)
		}
		conn.Close()
	}
	if conn, err := tls.Dial("tcp", l.Addr().String(), asCA("b.test", 0)); err == nil {
		conn.Close()
		t.Error("a certificate for a name without a challenge")
	}
}
