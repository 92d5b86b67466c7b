// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/issuer/vault"
	"github.com/keyturn/keyturn/ondemand"
)

// failures is a log handler that tells of each renewal that has failed.
type failures chan struct{}

func (failures) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (f failures) WithAttrs([]slog.Attr) slog.Handler             { return f }
func (f failures) WithGroup(string) slog.Handler                  { return f }
func (f failures) Handle(context.Context, slog.Record) error {
	select {
	case f <- struct{}{}:
	default:
	}
	return nil
}

// TestStoppedOnDemand stops Vault until a renewal at the handshake has failed. Handshakes
// go on with the certificate there is, and the renewal catches up when Vault is back.
func TestStoppedOnDemand(t *testing.T) {
	v := vaultserver.Start(t)
	roots := x509.NewCertPool()
	roots.AddCert(v.PKI(t))
	role(t, v, "web", map[string]any{"ttl": "1m", "max_ttl": "1m"})
	failed := make(failures, 1)
	source := &ondemand.Source{
		Issuer:     newIssuer(t, v, vault.Config{Auth: signer(t, v, "web")}),
		CommonName: "www.example.com", RenewBefore: 55 * time.Second, // due in five seconds
		Logger: slog.New(failed),
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	first := handshake(t, source, roots)
	v.Stop(t)
	for down := false; !down; {
		select {
		case <-failed:
			down = true
		case <-time.After(20 * time.Millisecond):
		}
		if !handshake(t, source, roots).Equal(first) {
			t.Fatal("another certificate is served while Vault is stopped")
		}
	}
	v.Restart(t)
	v.Unseal(t)
	for handshake(t, source, roots).Equal(first) {
		time.Sleep(20 * time.Millisecond)
	}
}

// handshake returns the certificate that a client gets, who trusts the roots.
func handshake(t *testing.T, source *ondemand.Source, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { // an error shows at the client
		_ = tls.Server(far, &tls.Config{GetCertificate: source.GetCertificate}).HandshakeContext(t.Context())
	}()
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "www.example.com"})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0]
}
