// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestCertificateTurns: the certificate is replaced long before it ends, for
// years, and each is good for clients that have pinned the CA.
func TestCertificateTurns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, err := loadAuthority(dir)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCertificate(a, []string{"bus.example", "192.0.2.1"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var runs sync.WaitGroup
		runs.Go(func() { c.run(ctx) })
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		served := make(map[string]bool)
		for range 730 / 5 { // two years
			time.Sleep(5 * 24 * time.Hour)
			synctest.Wait()
			now, ok := c.store.Get(certificateID)
			if !ok {
				t.Fatal("nothing is served")
			}
			served[now.Leaf.SerialNumber.String()] = true
			if left := time.Until(now.Leaf.NotAfter); left < renewBefore-lookEvery {
				t.Fatalf("the certificate has %v left", left)
			}
			for _, name := range []string{"bus.example", "192.0.2.1"} {
				if _, err := now.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()}); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if want := 730 / 60; len(served) < want || len(served) > want+1 {
			t.Errorf("%d certificates in two years, want %d", len(served), want)
		}
		// It ends with the CA at the latest.
		time.Sleep(time.Until(a.cert.NotAfter) - 24*time.Hour)
		synctest.Wait()
		if now, _ := c.store.Get(certificateID); now == nil || !now.Leaf.NotAfter.Equal(a.cert.NotAfter) {
			t.Error("a day before the CA's end, the certificate does not end with it")
		}
		stop()
		runs.Wait()
	})
}

// TestAuthorityIsKept: clients have pinned it.
func TestAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := loadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := loadAuthority(dir); err != nil || !again.cert.Equal(first.cert) {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	if fi, err := os.Stat(key); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	// A start that ended between the key and the certificate is gone on with.
	if err := os.Rename(cert, cert+".away"); err != nil {
		t.Fatal(err)
	}
	second, err := loadAuthority(dir)
	if err != nil || second.cert.Equal(first.cert) || !first.key.(*ecdsa.PrivateKey).Equal(second.key) {
		t.Fatal(err)
	}
	// Without its key it is not replaced.
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := loadAuthority(dir); err == nil {
		t.Error("a CA without its key was replaced")
	}
	if _, err := loadAuthorityKey(key, true); err != nil { // another key
		t.Fatal(err)
	}
	if _, err := loadAuthority(dir); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("with another key: %v", err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadAuthority(dir); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("with a key that others can read: %v", err)
	}
}

// TestHandshake: by which names, and by which version of TLS, the server is
// reached.
func TestHandshake(t *testing.T) {
	s, err := Start(Config{Dir: t.TempDir(), Listen: "0.0.0.0:0", Advertise: []string{"bus.example", "192.0.2.77"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL(), "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.URLs(), " "); s.URL() != "tls://127.0.0.1:"+port || got != "tls://bus.example:"+port+" tls://192.0.2.77:"+port {
		t.Errorf("here %s, elsewhere %s", s.URL(), got)
	}
	root, err := x509.ParseCertificate(s.Roots()[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	handshake := func(config *tls.Config) error {
		raw, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		for b := make([]byte, 1); b[0] != '\n'; { // the greeting comes in the clear
			if _, err := raw.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		return tls.Client(raw, config).HandshakeContext(t.Context())
	}
	for name, good := range map[string]bool{
		"bus.example": true, "192.0.2.77": true, "localhost": true, "127.0.0.1": true, "::1": true,
		"other.example": false, "192.0.2.78": false,
	} {
		if err := handshake(&tls.Config{RootCAs: roots, ServerName: name}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := handshake(&tls.Config{RootCAs: roots, ServerName: "bus.example", MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
}

// TestLoopbackIsPlain: nothing of TLS, and nobody else is told of it.
func TestLoopbackIsPlain(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	if urls := s.URLs(); len(urls) != 1 || urls[0] != s.URL() || !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") || s.Roots() != nil {
		t.Error(urls, s.URL(), s.Roots())
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.pem")); !os.IsNotExist(err) {
		t.Errorf("a CA was made: %v", err)
	}
}

// TestAdvertised: where nothing says otherwise, all addresses that others can
// reach.
func TestAdvertised(t *testing.T) {
	hosts, err := address{host: "0.0.0.0"}.hosts()
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			want++
		}
	}
	got := 0
	for _, h := range hosts {
		ip := net.ParseIP(h)
		if ip != nil && (ip.IsLoopback() || ip.To4() == nil) {
			t.Errorf("%s is advertised", h)
		}
		if ip != nil {
			got++
		}
	}
	if got != want {
		t.Errorf("%v: %d addresses, want %d", hosts, got, want)
	}
	if hosts, err := (address{host: "192.0.2.1"}).hosts(); err != nil || len(hosts) != 1 || hosts[0] != "192.0.2.1" {
		t.Error(hosts, err)
	}
}
