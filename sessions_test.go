// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"

	"github.com/keyturn/keyturn"
)

// resumes connects and fails the test unless it did, with a session of before or not.
func resumes(t *testing.T, about string, dial func(net.Conn) (*tls.Conn, error), server *tls.Config, want bool) tls.ConnectionState {
	t.Helper()
	_, s, clientErr, serverErr := connect(t, dial, server)
	if clientErr != nil || serverErr != nil || s.DidResume != want {
		t.Errorf("%s: client %v, server %v, resumed %t, want %t", about, clientErr, serverErr, s.DidResume, want)
	}
	return s
}

// caching is a config for a client that caches sessions.
func caching(root *authority, version uint16) *tls.Config {
	return &tls.Config{RootCAs: root.pool(), ServerName: "a.test", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
}

func TestCompromisedEndsResumption(t *testing.T) {
	root := newRoot(t, "root")
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			var store, clients keyturn.Store
			var trust keyturn.Trust
			put(t, &store, "id", root.leaf(t, names("a.test")))
			put(t, &clients, "id", root.leaf(t, names("client.test")))
			plain, trusting := store.ServerConfig(), trust.ServerConfig(store.ServerConfig())
			for what, server := range map[string]*tls.Config{"Store": plain, "Trust": trusting} {
				dial := by(caching(root, version))
				resumes(t, what, dial, server, false)
				resumes(t, what+" again", dial, server, true)
				put(t, &store, "id", root.leaf(t, names("a.test")))
				resumes(t, what+" after a renewal", dial, server, true)
				store.Compromised("id")
				resumes(t, what+" after Compromised", dial, server, false)
				resumes(t, what+" after that", dial, server, true)
			}

			dial := by(clients.ClientConfig(caching(root, version)))
			resumes(t, "client", dial, plain, false)
			resumes(t, "client again", dial, plain, true)
			clients.Compromised("id")
			resumes(t, "client after Compromised", dial, plain, false)
			resumes(t, "client after that", dial, plain, true)
		})
	}
}

// A client whose certificate has changed is not taken for the one it was.
func TestClientCertificateEndsResumption(t *testing.T) {
	root := newRoot(t, "root")
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			var servers keyturn.CertAuthManager
			servers.Update(root.leaf(t, names("a.test")))
			servers.SetClientCAs(root.pool())
			servers.SetClientAuth(tls.VerifyClientCertIfGiven)
			server := servers.ServerConfig()
			server.MaxVersion = version

			var store keyturn.Store
			var trust keyturn.Trust
			trust.SetRootCAs(root.pool())
			for how, dial := range map[string]func(net.Conn) (*tls.Conn, error){
				"Store": by(store.ClientConfig(caching(root, version))),
				"Trust": by(limited(store.ClientConfig(trust.ClientConfig("a.test")), version)),
				"Dialer": through(&trust, limited(store.ClientConfig(&tls.Config{
					ClientSessionCache: tls.NewLRUClientSessionCache(0),
				}), version), "a.test:443"),
			} {
				seen := func(about string, resumed bool, want string) {
					t.Helper()
					got := ""
					if s := resumes(t, how+", "+about, dial, server, resumed); len(s.PeerCertificates) > 0 {
						got = s.PeerCertificates[0].DNSNames[0]
					}
					if got != want {
						t.Errorf("%s, %s: the server saw %q, want %q", how, about, got, want)
					}
				}
				seen("without a certificate", false, "")
				seen("without a certificate again", true, "")
				for _, client := range []string{"b.test", "c.test"} {
					put(t, &store, "id", root.leaf(t, names(client)))
					seen("another certificate", false, client)
					seen("another certificate again", true, client)
				}
				put(t, &store, "server", root.leaf(t, names("d.test"), usages(x509.ExtKeyUsageServerAuth)))
				seen("a certificate for servers put", true, "c.test")
				store.Remove("id")
				seen("certificate removed", false, "")
				store.Remove("server")
				seen("a certificate for servers removed", true, "")
			}
		})
	}
}

func limited(config *tls.Config, version uint16) *tls.Config {
	config.MaxVersion = version
	return config
}

// A ticket that comes after a change, on a connection from before it, is from before.
func TestDialerWithLateTickets(t *testing.T) {
	root := newRoot(t, "root")
	var servers keyturn.CertAuthManager
	servers.Update(root.leaf(t, names("a.test")))
	servers.SetClientAuth(tls.RequestClientCert)
	server := servers.ServerConfig()

	var store keyturn.Store
	var trust keyturn.Trust
	put(t, &store, "id", root.leaf(t, names("client.test")))
	trust.SetRootCAs(root.pool())
	for what, change := range map[string]func(){
		"trust":       func() { trust.SetRootCAs(root.pool()) },
		"certificate": func() { put(t, &store, "id", root.leaf(t, names("client.test"))) },
		"compromised": func() { store.Compromised("id") },
	} {
		base := store.ClientConfig(&tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)})
		dial := through(&trust, base, "a.test:443")
		// With TLS 1.3 the ticket is read with the first data, which is after dial.
		late := func(inner net.Conn) (*tls.Conn, error) {
			conn, err := dial(inner)
			change()
			return conn, err
		}
		resumes(t, what, late, server, false)
		resumes(t, what+" after the change", dial, server, false)
		resumes(t, what+" after that", dial, server, true)
	}
}

// What does not concern a server ends none of its sessions, and what does concern it ends
// those of no other.
func TestTrustEndsNoMoreThanItMust(t *testing.T) {
	root := newRoot(t, "root")
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			var store keyturn.Store
			put(t, &store, "id", root.leaf(t, names("a.test")))
			var trust, other keyturn.Trust
			bare := &tls.Config{Certificates: []tls.Certificate{root.leaf(t, names("a.test"))}}
			for what, base := range map[string]*tls.Config{"of a Store": store.ServerConfig(), "without a Store": bare} {
				server, neighbour := trust.ServerConfig(base), other.ServerConfig(base)
				client := caching(root, version)
				dial := by(client)
				resumes(t, what, dial, server, false)
				trust.SetRootCAs(root.pool())
				trust.SetServerName("b.test")
				trust.SetInsecureSkipVerify(false)
				other.SetClientAuth(tls.RequestClientCert)
				resumes(t, what+", after changes for clients and of others", dial, server, true)
				resumes(t, what+", by its clone", dial, server.Clone(), true)
				resumes(t, what+", by another Trust", dial, neighbour, false)
				resumes(t, what+", with the ticket of another Trust", dial, server, false)

				var own keyturn.Trust
				own.SetRootCAs(root.pool())
				dial = by(limited(own.ClientConfig("a.test"), version))
				resumes(t, what+", client", dial, server, false)
				own.SetClientCAs(root.pool())
				own.SetClientAuth(tls.RequireAnyClientCert)
				resumes(t, what+", client after changes for servers", dial, server, true)
			}
		})
	}
}

// A ticket is of the settings that its connection began with, however late it is issued.
func TestTicketOfAHandshakeUnderWay(t *testing.T) {
	root := newRoot(t, "root")
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			var store keyturn.Store
			var trust keyturn.Trust
			put(t, &store, "id", root.leaf(t, names("a.test")))
			trust.SetClientCAs(root.pool())
			trust.SetClientAuth(tls.RequireAndVerifyClientCert)
			var once sync.Once
			base := store.ServerConfig()
			base.VerifyConnection = func(tls.ConnectionState) error {
				once.Do(func() { // the client's certificate was just verified
					trust.SetClientCAs(nil)
					trust.SetClientCAs(root.pool())
				})
				return nil
			}
			server := trust.ServerConfig(base)
			client := caching(root, version)
			client.Certificates = []tls.Certificate{root.leaf(t, names("client.test"))}
			resumes(t, "under way", by(client), server, false)
			resumes(t, "after the change", by(client), server, false)
			resumes(t, "after that", by(client), server, true)
		})
	}
}

// The tickets of a base that seals its own are its own, and no less limited.
func TestTicketsOfTheBase(t *testing.T) {
	root := newRoot(t, "root")
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			var trust keyturn.Trust
			var keys tls.Config
			keys.SetSessionTicketKeys([][32]byte{{1}})
			wrapped, unwrapped := 0, 0
			base := &tls.Config{
				Certificates: []tls.Certificate{root.leaf(t, names("a.test"))},
				WrapSession: func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
					wrapped++
					state.Extra = append(state.Extra, []byte("its own"))
					return keys.EncryptTicket(cs, state)
				},
				UnwrapSession: func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
					unwrapped++
					return keys.DecryptTicket(ticket, cs)
				},
			}
			dial, server := by(caching(root, version)), trust.ServerConfig(base)
			resumes(t, "first", dial, server, false)
			resumes(t, "again", dial, server, true)
			trust.SetClientAuth(tls.RequestClientCert)
			resumes(t, "after a change", dial, server, false)
			resumes(t, "after that", dial, server, true)
			if wrapped < 2 || unwrapped < 3 {
				t.Errorf("the base sealed %d tickets and opened %d", wrapped, unwrapped)
			}

			// Its tickets without the mark of a Trust are not resumed.
			dial = by(caching(root, version))
			resumes(t, "without a Trust", dial, base, false)
			resumes(t, "with one", dial, server, false)

			disabled := base.Clone()
			disabled.SessionTicketsDisabled = true
			dial = by(caching(root, version))
			for range 2 {
				resumes(t, "tickets disabled", dial, trust.ServerConfig(disabled), false)
			}
		})
	}
}
