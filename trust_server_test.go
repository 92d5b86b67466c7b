// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/keyturn/keyturn"
)

// trusting returns a server whose Trust can be changed, and a client that it may know.
func trusting(t testing.TB, root *authority) (trust *keyturn.Trust, base, client *tls.Config) {
	t.Helper()
	base = &tls.Config{Certificates: []tls.Certificate{root.leaf(t, names("a.test"))}}
	shown := credential{cert: root.leaf(t, names("client.test"))}
	client = &tls.Config{RootCAs: root.pool(), ServerName: "a.test", GetClientCertificate: shown.force()}
	return new(keyturn.Trust), base, client
}

func TestUnknownClientAuthMode(t *testing.T) {
	trust, base, client := trusting(t, newRoot(t, "root"))
	server := trust.ServerConfig(base)
	for _, mode := range []tls.ClientAuthType{-1, tls.RequireAndVerifyClientCert + 1, 1 << 30} {
		trust.SetClientAuth(mode)
		if _, _, clientErr, serverErr := connect(t, by(client), server); clientErr == nil || !errors.Is(serverErr, keyturn.ErrClientAuth) {
			t.Errorf("mode %d: client %v, server %v", mode, clientErr, serverErr)
		}
		if trust.ClientAuth() != mode {
			t.Errorf("ClientAuth() = %d, want %d", trust.ClientAuth(), mode)
		}
	}
	trust.SetClientAuth(tls.NoClientCert)
	if _, _, clientErr, serverErr := connect(t, by(client), server); clientErr != nil || serverErr != nil {
		t.Errorf("afterwards: client %v, server %v", clientErr, serverErr)
	}
}

// Which roots the system has is read once in a process, so this is another one.
func TestSystemRootsAreNotForClients(t *testing.T) {
	const child = "KEYTURN_TEST_OWN_SYSTEM_ROOTS"
	if slices.Contains([]string{"windows", "darwin", "ios"}, runtime.GOOS) {
		return // crypto/x509 asks the system there, and takes no file
	}
	if os.Getenv(child) == "" {
		dir := t.TempDir()
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		command.Env = append(os.Environ(), child+"=1", "SSL_CERT_FILE="+filepath.Join(dir, "roots.pem"), "SSL_CERT_DIR="+dir)
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}

	root := newRoot(t, "root")
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})
	if err := os.WriteFile(os.Getenv("SSL_CERT_FILE"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	trust, base, client := trusting(t, root)
	static := base.Clone()
	static.ClientAuth = tls.RequireAndVerifyClientCert
	if _, _, clientErr, serverErr := connect(t, by(client), static); clientErr != nil || serverErr != nil {
		t.Fatalf("crypto/tls does not take the system's roots for clients: %v, %v", clientErr, serverErr)
	}
	server := trust.ServerConfig(base)
	for _, version := range versions {
		for _, mode := range modes[3:] {
			for what, pool := range map[string]*x509.CertPool{"nil": nil, "empty": x509.NewCertPool()} {
				trust.SetClientCAs(pool)
				trust.SetClientAuth(mode)
				_, _, clientErr, serverErr := connect(t, by(limited(client, version)), server)
				if clientErr == nil || !errors.Is(serverErr, keyturn.ErrNoClientCAs) {
					t.Errorf("%s with a pool that is %s: client %v, server %v", mode, what, clientErr, serverErr)
				}
			}
			trust.SetClientCAs(newRoot(t, "other").pool())
			if _, _, _, serverErr := connect(t, by(limited(client, version)), server); serverErr == nil {
				t.Errorf("%s: a client of a system's root is believed", mode)
			}
		}
	}

	// For servers they are, unless there is a pool, be it empty.
	var destination keyturn.Trust
	dial, plain := by(destination.ClientConfig("a.test")), &tls.Config{Certificates: static.Certificates}
	for _, test := range []struct {
		pool *x509.CertPool
		want error
	}{{nil, nil}, {x509.NewCertPool(), errRefused}, {nil, nil}} {
		destination.SetRootCAs(test.pool)
		if _, _, clientErr, _ := connect(t, dial, plain); !fits(clientErr, test.want) {
			t.Errorf("a server of a system's root, with pool %v: %v", test.pool, clientErr)
		}
	}
}

// What base has is in every handshake, as it was when the config was made.
func TestServerConfigKeepsItsBase(t *testing.T) {
	root := newRoot(t, "root")
	no := errors.New("no")
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			trust, base, client := trusting(t, root)
			client.MaxVersion, client.NextProtos = version, []string{"x", "h2"}
			base.NextProtos = []string{"h2", "http/1.1"}
			var answer error
			connections, certificates := 0, 0
			base.VerifyConnection = func(cs tls.ConnectionState) error { connections++; return answer }
			base.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { certificates++; return nil }
			trust.SetClientAuth(tls.RequireAnyClientCert)
			server := trust.ServerConfig(base)
			base.NextProtos = nil
			base.Certificates = nil
			base.VerifyConnection = nil
			base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, no }

			for _, answer = range []error{nil, no, nil} {
				trust.SetRootCAs(nil)
				c, _, clientErr, serverErr := connect(t, by(client), server)
				if !fits(serverErr, answer) || (clientErr != nil) != (answer != nil) || answer == nil && c.NegotiatedProtocol != "h2" {
					t.Errorf("client %v, server %v, want %v, protocol %q", clientErr, serverErr, answer, c.NegotiatedProtocol)
				}
			}
			if connections != 3 || certificates != 3 {
				t.Errorf("base's VerifyConnection was called %d times, its VerifyPeerCertificate %d times", connections, certificates)
			}
			// It has the first word in what it alone can say, and Trust in what clients are.
			answer = no
			if err := trust.SetPeerNames("other.test"); err != nil {
				t.Fatal(err)
			}
			if _, _, _, serverErr := connect(t, by(client), server); !errors.Is(serverErr, keyturn.ErrPeerName) || connections != 3 {
				t.Errorf("%v, after %d calls", serverErr, connections)
			}
		})
	}
}

// What base's GetConfigForClient answers is served, with the client authentication of the
// Trust.
func TestServerConfigWithAnswers(t *testing.T) {
	root := newRoot(t, "root")
	trust, base, client := trusting(t, root)
	no := errors.New("no")
	other := &tls.Config{
		Certificates: []tls.Certificate{root.leaf(t, names("b.test"))},
		NextProtos:   []string{"b"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			t.Error("an answer was asked for another")
			return nil, no
		},
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch hello.ServerName {
		case "b.test":
			return other, nil
		case "c.test":
			return nil, no
		}
		return nil, nil
	}
	server := trust.ServerConfig(base)
	client.NextProtos = []string{"b"}
	for _, test := range []struct {
		name string
		cas  *authority
		want error
	}{
		{"a.test", root, nil},
		{"b.test", root, nil},
		{"c.test", root, no},
		{"a.test", newRoot(t, "other"), errRefused},
		{"b.test", newRoot(t, "other"), errRefused},
	} {
		trust.SetClientCAs(test.cas.pool())
		trust.SetClientAuth(tls.RequireAndVerifyClientCert)
		asking := client.Clone()
		asking.ServerName = test.name
		asking.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		for _, again := range []bool{false, true} {
			c, s, _, serverErr := connect(t, by(asking), server)
			if !fits(serverErr, test.want) || serverErr == nil && (len(s.PeerCertificates) != 1 || s.DidResume != again || (c.NegotiatedProtocol == "b") != (test.name == "b.test")) {
				t.Errorf("%s: %v, want %v; %+v", test.name, serverErr, test.want, s)
			}
		}
	}
	if other.ClientAuth != tls.NoClientCert || other.GetConfigForClient == nil {
		t.Error("the answer was changed")
	}
	trust.SetClientCAs(nil)
	for _, name := range []string{"a.test", "b.test"} {
		asking := client.Clone()
		asking.ServerName = name
		if _, _, _, serverErr := connect(t, by(asking), server); !errors.Is(serverErr, keyturn.ErrNoClientCAs) {
			t.Errorf("%s: %v", name, serverErr)
		}
	}
}

// All that a Trust can be told at once with handshakes, where each setting accepts them.
func TestTrustChangesWhileConnecting(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	both := root.pool()
	both.AddCert(other.cert)
	var server, client keyturn.CertAuthManager
	server.SetClientCAs(root.pool())
	client.SetRootCAs(root.pool())
	servers := []tls.Certificate{root.leaf(t, names("a.test")), root.leaf(t, names("a.test"))}
	clients := []tls.Certificate{root.leaf(t, names("client.test")), root.leaf(t, names("client.test"))}
	server.Update(servers[0])
	client.Update(clients[0])
	config := server.ServerConfig()

	changes := []func(int){
		func(i int) { server.SetClientAuth(modes[3+i%2]) },
		func(i int) { server.SetClientCAs([]*x509.CertPool{root.pool(), both}[i%2]) },
		func(i int) { _ = server.SetPeerNames([]string{"client.test", "*.test"}[i%2]) },
		func(i int) { client.SetRootCAs([]*x509.CertPool{root.pool(), both}[i%2]) },
		func(i int) { client.SetServerName([]string{"a.test", ""}[i%2]) },
		func(i int) { _ = client.SetPeerNames([][]string{nil, {"a.test"}}[i%2]...) },
		func(i int) { server.Update(servers[i%2]) },
		func(i int) { client.Update(clients[i%2]) },
		func(int) { client.Store().Compromised("nothing"); server.SetInsecureSkipVerify(false) },
		func(int) {
			server.ServerConfig()
			client.ServerName()
			client.RootCAs()
			server.ClientCAs()
			server.PeerNames()
		},
	}
	done := make(chan struct{})
	var changers, connecting sync.WaitGroup
	for range 2 {
		changers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					changes[i%len(changes)](i / len(changes))
				}
			}
		})
	}
	for name, version := range versions {
		base := limited(client.Store().ClientConfig(&tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0), ServerName: "a.test"}), version)
		for how, dial := range map[string]func(net.Conn) (*tls.Conn, error){
			"ClientConfig": by(limited(client.ClientConfig("a.test"), version)),
			"Dialer":       through(&client.Trust, base, "127.0.0.1:1"),
		} {
			connecting.Go(func() {
				for range 50 {
					if _, s, clientErr, serverErr := connect(t, dial, config); clientErr != nil || serverErr != nil || len(s.PeerCertificates) == 0 {
						t.Errorf("%s, %s: client %v, server %v", how, name, clientErr, serverErr)
					}
				}
			})
		}
	}
	connecting.Wait()
	close(done)
	changers.Wait()
}
