// SPDX-License-Identifier: Apache-2.0

package cfssl

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cahttp"
	"github.com/keyturn/keyturn/internal/certchain"
	"github.com/keyturn/keyturn/issuer"
)

var (
	_ issuer.Issuer  = (*Issuer)(nil)
	_ issuer.Revoker = (*Issuer)(nil)
)

// An Issuer has requests signed by a profile of CFSSL's.
type Issuer struct {
	config Config
	client *http.Client
}

// New returns an issuer. It asks nobody.
func New(c Config) (*Issuer, error) {
	c, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("configuring CFSSL: %w", err)
	}
	transport := cahttp.NewTransport(cahttp.TLS{Roots: c.Roots, ServerName: c.ServerName, CertFile: c.CertFile, KeyFile: c.KeyFile})
	return &Issuer{config: c, client: &http.Client{
		Transport: transport,
		Timeout:   c.Timeout,
		// A request is signed for one server; a redirect is an answer like others.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close lets go of connections that nobody uses. Calls that are under way go on.
func (i *Issuer) Close() error {
	i.client.CloseIdleConnections()
	return nil
}

// Issue is [issuer.Issuer]'s. CFSSL signs the names and the subject of the request, as
// far as the profile lets it. The lifetime is the profile's: the wish is not heard.
//
// The chain is the certificate, the CA's own, which the server hands out (info), and
// those of Intermediates that link to it, without the root.
//
// An error that CFSSL has answered with has an *[issuer.Problem] in it, whose Type is
// one of this package's.
func (i *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	if err := issuer.CheckRequest(csr, lifetime); err != nil {
		return nil, err
	}
	// First, since a certificate whose chain is not to be had is lost; and each time, since
	// a CA that is renewed with its key cannot be told from the former one by signatures.
	ca, err := i.info(ctx)
	if err != nil {
		return nil, err
	}
	leaf, err := i.sign(ctx, csr)
	if err != nil {
		return nil, err
	}
	if leaf.CheckSignatureFrom(ca) != nil { // the server got another CA in between
		if ca, err = i.info(ctx); err != nil {
			return nil, err
		}
	}
	chain, err := certchain.Link(leaf, append([]*x509.Certificate{ca}, i.config.Intermediates...))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", i, err)
	}
	return chain, nil
}

// info asks for the CA's certificate.
func (i *Issuer) info(ctx context.Context) (*x509.Certificate, error) {
	var answer struct {
		Certificate string `json:"certificate"`
	}
	if err := i.ask(ctx, "info", selection{i.config.Label, i.config.Profile}, &answer); err != nil {
		return nil, err
	}
	ca, err := certchain.One(answer.Certificate)
	if err != nil {
		return nil, fmt.Errorf("the CA certificate of %s: %w", i, err)
	}
	return ca, nil
}

// A selection says who is to sign, in CFSSL's words.
type selection struct {
	Label   string `json:"label,omitempty"`
	Profile string `json:"profile,omitempty"`
}

func (i *Issuer) sign(ctx context.Context, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	request := struct {
		selection
		Request string `json:"certificate_request"`
	}{
		selection{i.config.Label, i.config.Profile},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})),
	}
	var answer struct {
		Certificate string `json:"certificate"`
	}
	key, err := i.config.key()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", i, err)
	case key == nil:
		err = i.ask(ctx, "sign", request, &answer)
	default:
		err = i.askSigned(ctx, key, request, &answer)
	}
	if err != nil {
		return nil, err
	}
	leaf, err := certchain.One(answer.Certificate)
	if err != nil {
		return nil, fmt.Errorf("the certificate of %s: %w", i, err)
	}
	return leaf, nil
}

// Revoke is [issuer.Revoker]'s. It needs a server with a database of certificates
// (-db-config), which knows the certificate. CFSSL does not authenticate it: whoever
// reaches the endpoint may revoke. The key is not sent anywhere.
func (i *Issuer) Revoke(ctx context.Context, leaf *x509.Certificate, _ crypto.Signer, reason issuer.Reason) error {
	return i.ask(ctx, "revoke", struct {
		Serial string `json:"serial"`
		Key    string `json:"authority_key_id"`
		Reason string `json:"reason"`
	}{leaf.SerialNumber.String(), hex.EncodeToString(leaf.AuthorityKeyId), reasonOf(reason)}, nil)
}

// reasonOf is a reason as CFSSL spells it: RFC 5280's name in lower case.
func reasonOf(r issuer.Reason) string { return strings.ReplaceAll(r.String(), "-", "") }
