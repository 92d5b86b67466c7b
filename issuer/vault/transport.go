// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/cahttp"
)

// A transport is the only way to the server. It bounds what comes back, and sends
// nothing unprotected, wherever a redirect leads.
type transport struct{ base *http.Transport }

// newTransport takes the transport that Vault's client has made of the environment,
// and sets what the configuration says.
func newTransport(settings *api.Config, c Config) (*transport, error) {
	base, ok := settings.HttpClient.Transport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("the client of Vault has a transport of type %T", settings.HttpClient.Transport)
	}
	base.MaxResponseHeaderBytes, base.Proxy = cahttp.MaxHeader, cahttp.Proxy(base.Proxy)
	if c.Roots != nil {
		base.TLSClientConfig.RootCAs, base.TLSClientConfig.InsecureSkipVerify = c.Roots, false
	}
	if c.ServerName != "" {
		base.TLSClientConfig.ServerName, base.TLSClientConfig.InsecureSkipVerify = c.ServerName, false
	}
	if auth, ok := c.Auth.(Certificate); ok && auth.CertFile != "" {
		// Read for each connection, since short-lived certificates are replaced.
		base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(auth.CertFile, auth.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("the certificate to log in with: %w", err)
			}
			return &cert, nil
		}
	}
	return &transport{base}, nil
}

// A call is what the transport has seen of one call of Vault's client, which keeps
// it to itself.
type call struct {
	redirect   string        // where a standby said that the active node is; "" if nowhere
	retryAfter time.Duration // of the last answer; 0 if it had none
}

type callKey struct{}

// withCall returns a context whose requests are seen in the call.
func withCall(ctx context.Context) (context.Context, *call) {
	c := new(call)
	return context.WithValue(ctx, callKey{}, c), c
}

// RoundTrip sends a request once.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !cahttp.Protected(r.URL) {
		return nil, fmt.Errorf("it is redirected to %s, which is not https: correct the api_addr of the active node", r.URL.Host)
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	cahttp.Bound(resp)
	if seen, ok := r.Context().Value(callKey{}).(*call); ok {
		seen.retryAfter = cahttp.RetryAfter(resp.Header)
		if to, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 {
			seen.redirect = to.Scheme + "://" + to.Host
		}
	}
	return resp, nil
}

// CloseIdleConnections lets go of the connections that nobody uses.
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }
