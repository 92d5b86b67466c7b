// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

var modes = []tls.ClientAuthType{
	tls.NoClientCert, tls.RequestClientCert, tls.RequireAnyClientCert, tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert,
}

// fast key exchange leaves time for many handshakes under the race detector.
var fast = []tls.CurveID{tls.X25519}

// A credential is a certificate of a peer and what a rule of a test must know of it.
type credential struct {
	what    string
	cert    tls.Certificate // none if empty
	by      *authority
	names   []string
	expired bool
	notFor  bool // the use that is tested
}

// force has a client show its certificate whatever the server says that it accepts.
func (c credential) force() func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.cert, nil }
}

// A believer is what a Trust was told, for the rules of the tests: they say what is right
// in their own words, and use nothing of what they test.
type believer struct {
	mode     tls.ClientAuthType
	cas      []*authority
	peers    []string
	name     string // of servers
	insecure bool
}

func (b believer) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range b.cas {
		pool.AddCert(ca.cert)
	}
	return pool
}

func (b believer) vouchedFor(c credential) bool {
	return slices.Contains(b.cas, c.by) && !c.expired && !c.notFor
}

func (b believer) isPeer(c credential) bool {
	return len(b.peers) == 0 || slices.ContainsFunc(b.peers, func(p string) bool { return slices.Contains(c.names, p) })
}

// loopback returns both ends of a connection. Unlike a pipe it takes what a peer that
// has given up does not read any more.
func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// by returns a dial that does a handshake as config says.
func by(config *tls.Config) func(net.Conn) (*tls.Conn, error) {
	return func(inner net.Conn) (*tls.Conn, error) {
		conn := tls.Client(inner, config)
		return conn, conn.Handshake()
	}
}

// through returns a dial of a Dialer to address, over connections that are there already.
func through(trust *keyturn.Trust, base *tls.Config, address string) func(net.Conn) (*tls.Conn, error) {
	var inner net.Conn
	dial := trust.Dialer(base, func(context.Context, string, string) (net.Conn, error) { return inner, nil })
	return func(over net.Conn) (*tls.Conn, error) {
		inner = over
		conn, err := dial(context.Background(), "tcp", address)
		if err != nil {
			return nil, err
		}
		return conn.(*tls.Conn), nil
	}
}

// connect does a handshake over loopback and a round trip, with which a client of TLS 1.3
// learns whether it was accepted, and gets its ticket.
func connect(t testing.TB, dial func(net.Conn) (*tls.Conn, error), server *tls.Config) (c, s tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := loopback(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer b.Close()
		conn := tls.Server(b, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			s = conn.ConnectionState()
			serverErr = roundTrip(conn)
		}
	})
	conn, clientErr := dial(a)
	if clientErr == nil {
		clientErr = roundTrip(conn)
		c = conn.ConnectionState()
	}
	a.Close()
	wg.Wait()
	return c, s, clientErr, serverErr
}

// roundTrip sends a byte and reads the peer's.
func roundTrip(conn net.Conn) error {
	var one [1]byte
	if _, err := conn.Write(one[:]); err != nil {
		return err
	}
	_, err := conn.Read(one[:])
	return err
}

// A turn is one change of a Trust. It changes the rule's view in the same way.
type turn struct {
	what string
	do   func(*keyturn.Trust, *believer)
}

func setMode(mode tls.ClientAuthType) func(*keyturn.Trust, *believer) {
	return func(trust *keyturn.Trust, b *believer) { b.mode = mode; trust.SetClientAuth(mode) }
}

func setPeers(peers ...string) func(*keyturn.Trust, *believer) {
	return func(trust *keyturn.Trust, b *believer) {
		b.peers = peers
		if err := trust.SetPeerNames(peers...); err != nil {
			panic(err)
		}
	}
}

// clientRule says with which error a server must refuse a client, nil if it must not, and
// whether the client may resume a session of just now.
func clientRule(b believer, c credential) (want error, resumes bool) {
	verifying := b.mode == tls.VerifyClientCertIfGiven || b.mode == tls.RequireAndVerifyClientCert
	if verifying && len(b.cas) == 0 {
		return keyturn.ErrNoClientCAs, false
	}
	shown := b.mode != tls.NoClientCert && len(c.cert.Certificate) > 0
	switch {
	case !shown && (b.mode == tls.RequireAnyClientCert || b.mode == tls.RequireAndVerifyClientCert):
		return errRefused, false
	case !shown:
		return nil, true
	case verifying && !b.vouchedFor(c):
		return errRefused, false
	case verifying && !b.isPeer(c), !verifying && len(b.peers) > 0:
		return keyturn.ErrPeerName, false
	}
	return nil, !c.expired // crypto/tls has expired clients begin anew
}

// errRefused is any error of crypto/tls.
var errRefused = errors.New("refused")

func fits(err, want error) bool {
	return want == nil && err == nil || want == errRefused && err != nil || want != nil && errors.Is(err, want)
}

func TestTrustServerMatrix(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	var store keyturn.Store
	put(t, &store, "server", root.leaf(t, names("a.test")))
	const client, peer = "client.test", "peer.test"
	setCAs := func(cas ...*authority) func(*keyturn.Trust, *believer) {
		return func(trust *keyturn.Trust, b *believer) { b.cas = cas; trust.SetClientCAs(b.pool()) }
	}
	credentials := []credential{
		{what: "good", cert: root.leaf(t, names(client)), by: root, names: []string{client}},
		{what: "expired", cert: root.leaf(t, names(client), validity(-2*time.Hour, -time.Hour)), by: root, names: []string{client}, expired: true},
		{what: "unknown", cert: other.leaf(t, names(client)), by: other, names: []string{client}},
		{what: "none"},
	}
	turns := []turn{
		{"CA removed", setCAs(other)},
		{"all CAs removed", setCAs()},
		{"CA added", setCAs(root, other)},
		{"CA removed and put back", func(trust *keyturn.Trust, b *believer) { setCAs()(trust, b); setCAs(root)(trust, b) }},
		{"peer named", setPeers(peer, client)},
		{"other peer named", setPeers(peer)},
	}
	for _, mode := range modes {
		turns = append(turns, turn{mode.String(), setMode(mode)})
	}
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			for _, c := range credentials {
				for _, mode := range modes {
					for _, turn := range turns {
						var trust keyturn.Trust
						var b believer
						setCAs(root)(&trust, &b)
						setMode(mode)(&trust, &b)
						server := trust.ServerConfig(store.ServerConfig())
						config := &tls.Config{
							RootCAs: root.pool(), ServerName: "a.test", MaxVersion: version, CurvePreferences: fast,
							ClientSessionCache: tls.NewLRUClientSessionCache(0), GetClientCertificate: c.force(),
						}
						about := fmt.Sprintf("%s, client %s", mode, c.what)
						checkClients(t, about+", before", config, server, b, c)
						turn.do(&trust, &b)
						checkClients(t, about+", after "+turn.what, config, server, b, c)
					}
				}
			}
		})
	}
}

// checkClients connects twice after a change of trust.
func checkClients(t *testing.T, about string, client, server *tls.Config, b believer, c credential) {
	t.Helper()
	want, resumes := clientRule(b, c)
	for _, again := range []bool{false, true} {
		cs, ss, clientErr, serverErr := connect(t, by(client), server)
		resumed := again && resumes
		if !fits(serverErr, want) || (clientErr != nil) != (want != nil) {
			t.Errorf("%s, again %t: server %v, client %v, want %v", about, again, serverErr, clientErr, want)
		} else if ss.DidResume != resumed || cs.DidResume != resumed {
			t.Errorf("%s, again %t: resumed %t and %t, want %t", about, again, ss.DidResume, cs.DidResume, resumed)
		}
		if shown := len(ss.PeerCertificates) > 0; serverErr == nil && shown != (b.mode != tls.NoClientCert && len(c.cert.Certificate) > 0) {
			t.Errorf("%s, again %t: the server has seen a certificate: %t", about, again, shown)
		}
	}
}

// serverRule is clientRule for what a client makes of a server.
func serverRule(b believer, c credential) (accepted, resumes bool) {
	ok := b.insecure || b.vouchedFor(c) && slices.Contains(c.names, b.name) && b.isPeer(c)
	return ok, ok && !c.expired
}

func TestTrustClientMatrix(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	const name, peer, id = "a.test", "b.test", "spiffe://example.org/server"
	setCAs := func(cas ...*authority) func(*keyturn.Trust, *believer) {
		return func(trust *keyturn.Trust, b *believer) { b.cas = cas; trust.SetRootCAs(b.pool()) }
	}
	setName := func(name string) func(*keyturn.Trust, *believer) {
		return func(trust *keyturn.Trust, b *believer) { b.name = name; trust.SetServerName(name) }
	}
	setInsecure := func(skip bool) func(*keyturn.Trust, *believer) {
		return func(trust *keyturn.Trust, b *believer) { b.insecure = skip; trust.SetInsecureSkipVerify(skip) }
	}
	intermediate := newAuthority(t, "intermediate", root)
	credentials := []credential{
		{what: "good", cert: root.leaf(t, names(name)), by: root, names: []string{name}},
		{what: "good with an intermediate", cert: intermediate.leaf(t, names(name)), by: root, names: []string{name}},
		{what: "expired", cert: root.leaf(t, names(name), validity(-2*time.Hour, -time.Hour)), by: root, names: []string{name}, expired: true},
		{what: "unknown", cert: other.leaf(t, names(name)), by: other, names: []string{name}},
		{what: "other name", cert: root.leaf(t, names(peer)), by: root, names: []string{peer}},
		{what: "client", cert: root.leaf(t, names(name), usages(x509.ExtKeyUsageClientAuth)), by: root, names: []string{name}, notFor: true},
		{what: "URI", cert: root.leaf(t, uris(id)), by: root, names: []string{id}},
		{what: "both names", cert: root.leaf(t, names(name), uris(id)), by: root, names: []string{name, id}},
	}
	turns := []turn{
		{"root removed", setCAs(other)},
		{"all roots removed", setCAs()},
		{"root added", setCAs(root, other)},
		{"root removed and put back", func(trust *keyturn.Trust, b *believer) { setCAs()(trust, b); setCAs(root)(trust, b) }},
		{"another server name", setName(peer)},
		{"a URI as the server name", setName(id)},
		{"the same server name", setName(name)},
		{"peer named", setPeers(id, name)},
		{"other peer named", setPeers(id)},
		{"verification skipped", setInsecure(true)},
		{"verification not skipped", setInsecure(false)},
	}
	for what, version := range versions {
		t.Run(what, func(t *testing.T) {
			for _, c := range credentials {
				for _, insecure := range []bool{false, true} {
					for _, turn := range turns {
						for _, dialer := range []bool{false, true} {
							server := &tls.Config{Certificates: []tls.Certificate{c.cert}, MaxVersion: version, CurvePreferences: fast}
							var trust keyturn.Trust
							b := believer{name: name}
							setCAs(root)(&trust, &b)
							if insecure {
								setInsecure(true)(&trust, &b)
							}
							dial := by(trust.ClientConfig(name))
							if dialer {
								dial = through(&trust, &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)}, name+":443")
							}
							about := fmt.Sprintf("server %s, Dialer %t, insecure %t", c.what, dialer, insecure)
							checkServers(t, about+", before", dial, server, b, c)
							turn.do(&trust, &b)
							checkServers(t, about+", after "+turn.what, dial, server, b, c)
						}
					}
				}
			}
		})
	}
}

func checkServers(t *testing.T, about string, dial func(net.Conn) (*tls.Conn, error), server *tls.Config, b believer, c credential) {
	t.Helper()
	accepted, resumes := serverRule(b, c)
	for _, again := range []bool{false, true} {
		cs, _, clientErr, serverErr := connect(t, dial, server)
		var unverified *tls.CertificateVerificationError
		if (clientErr == nil) != accepted || (serverErr == nil) != accepted || !accepted && !errors.As(clientErr, &unverified) {
			t.Errorf("%s, again %t: client %v, server %v, want accepted %t", about, again, clientErr, serverErr, accepted)
		} else if cs.DidResume != (again && resumes) {
			t.Errorf("%s, again %t: resumed %t", about, again, cs.DidResume)
		}
	}
}
