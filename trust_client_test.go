// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn"
)

// What is no name of one server is nobody's, rather than everybody's.
func TestServerNamesThatAreNone(t *testing.T) {
	root := newRoot(t, "root")
	server := &tls.Config{Certificates: []tls.Certificate{root.leaf(t, names("a.test", "*.a.test"), uris("spiffe://example.org/a"))}}
	for name, want := range map[string]error{
		".":                        keyturn.ErrNoServerName,
		"[]":                       keyturn.ErrNoServerName,
		"[":                        keyturn.ErrNoServerName,
		"[.]":                      keyturn.ErrNoServerName,
		"*":                        errRefused,
		"*.test":                   errRefused,
		"a.test\x00":               errRefused,
		"https://a.test":           keyturn.ErrPeerName,
		"spiffe://":                keyturn.ErrBadName,
		"spiffe://example.org/*":   keyturn.ErrBadName,
		"spiffe://example.org/":    keyturn.ErrBadName,
		"spiffe://example.org/a?b": keyturn.ErrBadName,
		"spiffe://example.org":     keyturn.ErrPeerName,
		"spiffe://example.org/A":   keyturn.ErrPeerName,
	} {
		var trust, set keyturn.Trust
		trust.SetRootCAs(root.pool())
		set.SetRootCAs(root.pool())
		set.SetServerName(name)
		for how, dial := range map[string]func(net.Conn) (*tls.Conn, error){
			"ClientConfig":                by(trust.ClientConfig(name)),
			"SetServerName, ClientConfig": by(set.ClientConfig("a.test")),
			"SetServerName, Dialer":       through(&set, nil, "a.test:443"),
		} {
			if _, _, clientErr, serverErr := connect(t, dial, server); !fits(clientErr, want) || serverErr == nil {
				t.Errorf("%s with %q: client %v, server %v, want %v", how, name, clientErr, serverErr, want)
			}
		}
	}
}

// Which name a server must have, and which it is sent.
func TestServerNames(t *testing.T) {
	root := newRoot(t, "root")
	const id = "spiffe://example.org/a"
	server := &tls.Config{Certificates: []tls.Certificate{root.leaf(t, names("a.test", "b.test", "127.0.0.1", "::1"), uris(id))}}
	for _, test := range []struct {
		set, given string // by SetServerName, and to ClientConfig or as the base's ServerName
		address    string // that Dialer connects to; ClientConfig is used if it is empty
		sent       string
		want       error
	}{
		{given: "a.test", sent: "a.test"},
		{given: "A.Test.", sent: "A.Test"},
		{given: "127.0.0.1"},
		{given: "::1"},
		{given: "[::1]"},
		{given: id},
		{given: "c.test", sent: "c.test", want: errRefused},
		{given: "127.0.0.2", want: errRefused},
		{want: keyturn.ErrNoServerName},
		{set: "b.test"},
		{set: "b.test", given: "c.test", sent: "c.test"},
		{set: "c.test", given: "a.test", sent: "a.test", want: errRefused},

		{address: "a.test:1", sent: "a.test"},
		{address: "a.test.:1", sent: "a.test"},
		{address: "c.test:1", sent: "c.test", want: errRefused},
		{address: "127.0.0.1:1"},
		{address: "[::1]:1"},
		{address: "[::1%eth0]:1"},
		{address: "127.0.0.2:1", want: errRefused},
		{address: "[::2]:1", want: errRefused},
		{address: ":1", want: keyturn.ErrNoServerName},
		{address: ".:1", want: keyturn.ErrNoServerName},
		{address: "127.0.0.2:1", given: "a.test", sent: "a.test"},
		{address: "a.test:1", given: "c.test", sent: "c.test", want: errRefused},
		{address: "127.0.0.2:1", set: "b.test", sent: "b.test"},
		{address: "a.test:1", set: "c.test", sent: "c.test", want: errRefused},
		{address: "a.test:1", set: "127.0.0.1"},
		{address: "c.test:1", set: id, sent: "c.test"},
		{address: "127.0.0.2:1", set: id},
	} {
		for what, version := range versions {
			var trust keyturn.Trust
			trust.SetRootCAs(root.pool())
			trust.SetServerName(test.set)
			dial := by(trust.ClientConfig(test.given))
			if test.address != "" {
				dial = through(&trust, &tls.Config{ServerName: test.given}, test.address)
			}
			var sent string
			config := server.Clone()
			config.MaxVersion = version
			config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				sent = hello.ServerName
				return nil, nil
			}
			if _, _, clientErr, _ := connect(t, dial, config); !fits(clientErr, test.want) || sent != test.sent {
				t.Errorf("%s, %+v: %v, sent %q", what, test, clientErr, sent)
			}
		}
	}
}

// The server name that a Dialer sends follows, and it goes on with its sessions.
func TestDialerFollowsServerName(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "a", root.leaf(t, names("a.test")))
	put(t, &store, "b", root.leaf(t, names("b.test")))
	server := store.ServerConfig()
	var trust keyturn.Trust
	trust.SetRootCAs(root.pool())
	dial := through(&trust, &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)}, "127.0.0.1:443")
	for _, name := range []string{"a.test", "b.test", "a.test"} {
		trust.SetServerName(name)
		for _, resumed := range []bool{false, true} {
			c, s, clientErr, serverErr := connect(t, dial, server)
			if clientErr != nil || serverErr != nil || s.ServerName != name || c.PeerCertificates[0].DNSNames[0] != name || c.DidResume != resumed {
				t.Errorf("%s: client %v, server %v, which was sent %q; resumed %t", name, clientErr, serverErr, s.ServerName, c.DidResume)
			}
		}
	}
}

func TestDialerFails(t *testing.T) {
	var trust keyturn.Trust
	for _, address := range []string{"", "a.test", "[::1]", "::1:1:"} {
		if conn, err := trust.Dialer(nil, nil)(t.Context(), "tcp", address); err == nil || conn != nil || !strings.Contains(err.Error(), "keyturn: connecting to") {
			t.Errorf("%q: %v, %v", address, conn, err)
		}
	}

	unreachable := errors.New("unreachable")
	fail := func(context.Context, string, string) (net.Conn, error) { return nil, unreachable }
	if conn, err := trust.Dialer(nil, fail)(t.Context(), "tcp", "a.test:443"); conn != nil || !errors.Is(err, unreachable) {
		t.Errorf("%v, %v", conn, err)
	}

	// A server that never answers keeps nobody longer than the context.
	client, server := loopback(t)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	silent := func(context.Context, string, string) (net.Conn, error) { cancel(); return client, nil }
	if conn, err := trust.Dialer(nil, silent)(ctx, "tcp", "a.test:443"); conn != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", conn, err)
	}

	// No connection stays open that is not returned.
	client, server = loopback(t)
	defer server.Close()
	if _, err := io.WriteString(server, "HTTP/1.1 400 Bad Request\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	noTLS := func(context.Context, string, string) (net.Conn, error) { return client, nil }
	var header tls.RecordHeaderError
	if conn, err := trust.Dialer(nil, noTLS)(t.Context(), "tcp", "a.test:443"); conn != nil || !errors.As(err, &header) {
		t.Errorf("%v, %v", conn, err)
	}
	if err := client.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the handshake failed: %v", err)
	}

	// VerifyConnection of base has the last word.
	root := newRoot(t, "root")
	config := &tls.Config{Certificates: []tls.Certificate{root.leaf(t, names("a.test"))}}
	trust.SetRootCAs(root.pool())
	base := &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return unreachable }}
	if _, _, clientErr, _ := connect(t, through(&trust, base, "a.test:443"), config); !errors.Is(clientErr, unreachable) {
		t.Error(clientErr)
	}
	// What base has of trust is not used, or refused.
	base = &tls.Config{RootCAs: root.pool()}
	if _, _, clientErr, _ := connect(t, through(&trust, base, "a.test:443"), config); clientErr == nil || !strings.Contains(clientErr.Error(), "use SetRootCAs") {
		t.Error(clientErr)
	}
	trust.SetRootCAs(newRoot(t, "other").pool())
	base = &tls.Config{InsecureSkipVerify: true}
	if _, _, clientErr, _ := connect(t, through(&trust, base, "a.test:443"), config); clientErr == nil {
		t.Error("the server was not verified")
	}
}

// A server that never answers keeps nobody for ever, be there no end to the context: a
// Transport gives one that lives on after the request.
func TestDialerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		go io.Copy(io.Discard, server)
		silent := func(context.Context, string, string) (net.Conn, error) { return client, nil }
		if conn, err := new(keyturn.Trust).Dialer(nil, silent)(t.Context(), "tcp", "a.test:443"); conn != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, %v", conn, err)
		}
	})
}

// Not to verify servers is said once, and is nothing that a server does with its clients.
func TestInsecureSkipVerify(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)

	root, other := newRoot(t, "root"), newRoot(t, "other")
	var trust keyturn.Trust
	var store keyturn.Store
	put(t, &store, "id", other.leaf(t, names("a.test")))
	store.SetDefault("id")
	trust.SetClientCAs(root.pool())
	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
	trust.SetInsecureSkipVerify(false)
	if trust.InsecureSkipVerify() || log.Len() > 0 {
		t.Errorf("warned of nothing: %s", &log)
	}
	for range 3 {
		trust.SetInsecureSkipVerify(true)
	}
	if got := strings.Count(log.String(), "level=WARN"); got != 1 || strings.Count(log.String(), "\n") != 1 || !trust.InsecureSkipVerify() {
		t.Errorf("warned %d times: %s", got, &log)
	}

	server := trust.ServerConfig(store.ServerConfig())
	if err := trust.SetPeerNames("client.test"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		ca   *authority
		name string
		want error
	}{
		{root, "client.test", nil},
		{root, "other.test", keyturn.ErrPeerName},
		{other, "client.test", errRefused},
	} {
		client := trust.ClientConfig("c.test")
		client.GetClientCertificate = credential{cert: test.ca.leaf(t, names(test.name))}.force()
		if _, _, _, serverErr := connect(t, by(client), server); !fits(serverErr, test.want) {
			t.Errorf("the server: %v, want %v", serverErr, test.want)
		}
	}
}

// What is given to a Trust and got from it are copies.
func TestTrustCopies(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	var trust keyturn.Trust
	if trust.ClientCAs() != nil || trust.RootCAs() != nil || trust.PeerNames() != nil || trust.ServerName() != "" || trust.ClientAuth() != tls.NoClientCert {
		t.Error("the zero value is not empty")
	}
	for what, f := range map[string]struct {
		set func(*x509.CertPool)
		get func() *x509.CertPool
	}{
		"client": {trust.SetClientCAs, trust.ClientCAs},
		"root":   {trust.SetRootCAs, trust.RootCAs},
	} {
		given := root.pool()
		f.set(given)
		given.AddCert(other.cert)
		f.get().AddCert(other.cert)
		if !f.get().Equal(root.pool()) {
			t.Errorf("the pool of %s CAs was changed from outside", what)
		}
		if f.set(nil); f.get() != nil {
			t.Errorf("the pool of %s CAs is still there", what)
		}
	}
	given := []string{"a.test", "spiffe://example.org/*"}
	if err := trust.SetPeerNames(given...); err != nil {
		t.Fatal(err)
	}
	given[0] = "b.test"
	trust.PeerNames()[1] = "c.test"
	if diff := cmp.Diff([]string{"a.test", "spiffe://example.org/*"}, trust.PeerNames()); diff != "" {
		t.Error(diff)
	}
}
