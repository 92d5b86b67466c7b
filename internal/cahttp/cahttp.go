// SPDX-License-Identifier: Apache-2.0

// Package cahttp has what issuers share that speak HTTP to a CA: a transport that a
// server cannot make read without end, and what may be sent without TLS.
package cahttp

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a server can make this process do.
const (
	// MaxAnswer is the most bytes of an answer that are read. The longest by right is
	// a chain of ten certificates with long keys, some 30 KiB.
	MaxAnswer = 1 << 20
	// MaxHeader is the most bytes of an answer's header.
	MaxHeader = 64 << 10
	// MaxRetryAfter is the longest that a server can put off the next request.
	MaxRetryAfter = 24 * time.Hour
)

// TLS is how a server is known, and how it knows its client.
type TLS struct {
	// Roots are those of the server's certificate; nil are the system's.
	Roots *x509.CertPool
	// ServerName is the name in the server's certificate; "" is the address's.
	ServerName string
	// CertFile and KeyFile hold the client's certificate and key, in PEM; "" is none.
	// They are read for each connection, since short-lived ones are replaced.
	CertFile, KeyFile string
}

// NewTransport returns a transport that goes by the proxies of the environment. It
// speaks HTTP/1.1: by HTTP/2, Go does not tell that a server wants a client certificate.
func NewTransport(t TLS) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	base := &http.Transport{
		Proxy:                  Proxy(http.ProxyFromEnvironment),
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: t.Roots, ServerName: t.ServerName, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: MaxHeader,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
	}
	if t.CertFile != "" {
		base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("the client certificate: %w", err)
			}
			return &cert, nil
		}
	}
	return base
}

// Proxy returns what goes by a proxy for https alone, which it cannot read: what is
// Protected without TLS is so only as long as it stays on this machine.
func Proxy(by func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if by == nil || r.URL.Scheme != "https" {
			return nil, nil
		}
		return by(r)
	}
}

// Bound makes the body of an answer end in an error after MaxAnswer bytes.
func Bound(resp *http.Response) { resp.Body = &boundedBody{resp.Body, MaxAnswer} }

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", MaxAnswer)
	}
	return n, err
}

// RetryAfter reads when a server wants to be asked again (RFC 9110 section 10.2.3);
// 0 if it does not say.
func RetryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), MaxRetryAfter)
	}
	return 0
}

// Protected reports whether nobody on the network sees or changes what goes to u: by
// TLS, or because it stays on this machine.
func Protected(u *url.URL) bool {
	if u.Scheme == "https" || u.Hostname() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback()
}
