// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"testing"
	"time"
)

// TestWriteDeadline holds that a deadline of crypto/tls is not put off.
func TestWriteDeadline(t *testing.T) {
	inner, other := net.Pipe()
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, other)
		read <- err
	}()
	defer func() {
		_ = inner.Close()
		<-read
	}()
	c := &conn{Conn: inner, stall: time.Hour}
	for _, set := range []func(time.Time) error{c.SetWriteDeadline, c.SetDeadline} {
		if err := set(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
}

// TestNameOf has certificates whose name could be taken for another kind's.
func TestNameOf(t *testing.T) {
	for text, want := range map[string]string{
		"spiffe://example.org/web": "spiffe://example.org/web",
		"admin.example.com":        "",
		"//admin.example.com":      "",
		"/admin":                   "",
		"urn:a,b":                  "",
	} {
		uri, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := nameOf(&x509.Certificate{URIs: []*url.URL{uri}, DNSNames: []string{"web.example"}}); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
