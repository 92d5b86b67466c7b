// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/solver"
)

// Config says which CA is asked, and how. Name, Directory, Account and Solve are
// required.
type Config struct {
	// Name is the issuer's, for messages.
	Name string
	// Directory is the https URL of the CA's directory.
	Directory string
	// Roots are those of the CA's web server; nil are the system's.
	Roots *x509.CertPool
	// TermsAgreed says that the CA's terms of service are agreed to. It must be true
	// where the CA has any.
	TermsAgreed bool
	// Contact are mail addresses that the CA may write to.
	Contact []string
	// Profile is the kind of certificate where an order does not say; "" is the
	// CA's default.
	Profile string
	// PreferredChain is the common name of the issuer at the end of the wanted
	// chain; "" is the CA's own preference.
	PreferredChain string
	// Challenge is how control of a name is proven where an order does not say; "" is
	// http-01. What it cannot prove is proven by what can: wildcards by dns-01, IP
	// addresses by http-01.
	Challenge string
	// EAB binds a new account to one that the CA knows already; nil if it asks for
	// none.
	EAB *EAB
	// Account is whose orders they are. Its key has been written down; its URL may be
	// empty: it is made on first use. It is not changed.
	Account *Account
	// Solve answers a challenge, as a [solver.Solver] does.
	Solve func(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error)
	// AskLifetime sends the wanted lifetime as the order's notAfter (RFC 8555 section
	// 7.1.3). Private CAs heed it; most public ones refuse such orders, so that
	// without it a wish for a lifetime is not sent at all: profiles are the way there.
	AskLifetime bool
	// SkipCAA leaves CAA records to the CA. Else they are looked up first, by
	// Resolvers (HOST:PORT; none are the system's).
	SkipCAA   bool
	Resolvers []string
	// Poll is how long to wait before the next look at something that has been waited
	// for so long, where the CA does not say; nil is Adaptive.
	Poll func(waited time.Duration) time.Duration
	// Timeout bounds one request, its answer included, and Patience how long a state
	// is waited for within one call; 0 are 30 seconds and five minutes.
	Timeout, Patience time.Duration
	// Version is Keyturn's, for the CA's log.
	Version string
	// Logger gets what is worth knowing but no error; nil is nobody.
	Logger *slog.Logger
}

// EAB is an external account binding (RFC 8555 section 7.3.4).
type EAB struct {
	KeyID string
	// HMACKey is base64url, with or without padding, as CAs give it.
	HMACKey string
}

// Format keeps the key from being printed.
func (e EAB) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "external account %q", e.KeyID) }

// MarshalText keeps the key from being encoded or logged.
func (e EAB) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", e), nil }

// complete checks the configuration and returns it in its normal form.
func (c Config) complete() (Config, error) {
	u, err := url.Parse(c.Directory)
	switch {
	case err != nil:
		return c, fmt.Errorf("the directory's URL: %w", err)
	case u.Scheme != "https" || u.Host == "":
		return c, fmt.Errorf("the directory %q is no https URL: what goes to a CA and comes back has to be protected", c.Directory)
	case u.User != nil || u.Fragment != "":
		return c, errors.New("the directory's URL has a user or a fragment, which mean nothing there")
	case c.Account == nil:
		return c, errors.New("no account is given")
	case c.Solve == nil:
		return c, errors.New("nobody is given who answers challenges")
	case c.Challenge != "" && !slices.Contains(solver.Types(), c.Challenge):
		return c, fmt.Errorf("%q is no challenge; known are %s", c.Challenge, strings.Join(solver.Types(), ", "))
	}
	if err := c.Account.check(); err != nil {
		return c, err
	}
	if c.EAB, err = c.EAB.normal(); err != nil {
		return c, err
	}
	c.Contact = slices.Clone(c.Contact)
	for i, address := range c.Contact {
		if !strings.Contains(address, ":") {
			c.Contact[i] = "mailto:" + address // RFC 8555 section 7.3: URLs
		}
	}
	c.Challenge = cmp.Or(c.Challenge, solver.HTTP01)
	c.Timeout, c.Patience = cmp.Or(c.Timeout, requestTimeout), cmp.Or(c.Patience, patience)
	if c.Poll == nil {
		c.Poll = Adaptive
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// normal checks a binding and takes the padding from its key, which RFC 8555 does
// not have.
func (e *EAB) normal() (*EAB, error) {
	if e == nil {
		return nil, nil
	}
	key := strings.TrimRight(strings.TrimSpace(e.HMACKey), "=")
	if raw, err := base64.RawURLEncoding.DecodeString(key); err != nil || len(raw) == 0 {
		return nil, errors.New("the key of the external account binding is not base64url: copy it again as the CA gave it")
	}
	if e.KeyID == "" {
		return nil, errors.New("the external account binding has no key ID: copy it as the CA gave it")
	}
	return &EAB{KeyID: e.KeyID, HMACKey: key}, nil
}
