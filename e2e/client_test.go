// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// A client makes handshakes with a server and verifies its certificate.
type client struct {
	config *tls.Config
	addr   string
	// dial connects, where the client is not on this machine.
	dial func(ctx context.Context, addr string) (net.Conn, error)
}

// client returns a client that trusts the CA of the instance, and nothing else.
func (s *sandbox) client(t *testing.T, addr, name string) *client {
	t.Helper()
	return &client{config: &tls.Config{RootCAs: s.roots(t), ServerName: name}, addr: addr}
}

// roots reads ca.pem.
func (s *sandbox) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in ca.pem:\n%s", text)
	}
	return pool
}

// with returns a client of one TLS version. One that resumes goes on with the
// sessions of its earlier handshakes.
func (c *client) with(version uint16, resume bool) *client {
	config := c.config.Clone()
	config.MinVersion, config.MaxVersion = version, version
	if resume {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	return &client{config, c.addr, c.dial}
}

func (c *client) connect(ctx context.Context) (net.Conn, error) {
	if c.dial != nil {
		return c.dial(ctx, c.addr)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", c.addr)
}

// handshake makes a handshake and one request on it. Without the request the
// client of TLS 1.3 would not know whether the server took its part, nor get a
// ticket to resume by.
func (c *client) handshake() (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	plain, err := c.connect(ctx)
	if err != nil {
		return tls.ConnectionState{}, fmt.Errorf("connecting: %w", err)
	}
	conn := tls.Client(plain, c.config)
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, fmt.Errorf("handshake: %w", err)
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return tls.ConnectionState{}, err
	}
	if _, err := io.WriteString(conn, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return tls.ConnectionState{}, fmt.Errorf("asking after the handshake: %w", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return tls.ConnectionState{}, fmt.Errorf("reading after the handshake: %w", err)
	}
	if want := "HTTP/1.1 200 "; len(answer) < len(want) || string(answer[:len(want)]) != want {
		return tls.ConnectionState{}, fmt.Errorf("the answer after the handshake is %.100q", answer)
	}
	return conn.ConnectionState(), nil
}

// serial makes a handshake and returns the serial number of the leaf.
func (c *client) serial() (string, error) {
	state, err := c.handshake()
	if err != nil {
		return "", err
	}
	return serialOf(state.PeerCertificates[0]), nil
}

// sees returns nil if a handshake gets the leaf with this serial number.
func (c *client) sees(serial string) error {
	got, err := c.serial()
	if err == nil && got != serial {
		err = fmt.Errorf("serial %s is served, not %s", got, serial)
	}
	return err
}

// transport is for requests over one version of HTTP, on connections that are
// kept.
func (c *client) transport(h2 bool) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetHTTP2(h2)
	return &http.Transport{
		TLSClientConfig:       c.config.Clone(),
		Protocols:             p,
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		ResponseHeaderTimeout: patience,
	}
}

func serialOf(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SerialNumber) }

func fingerprint(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }

// parseChain reads certificates in PEM from a text that may hold more.
func parseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return chain, nil
}

// freeAddr returns an address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := testprogram.FreePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// seconds prints a duration for a log.
func seconds(d time.Duration) string { return d.Round(time.Millisecond).String() }
