// SPDX-License-Identifier: Apache-2.0

// Package acmedns sets records at a server of acme-dns, which holds nothing but
// answers to challenges: the names are CNAMEs to the account's full domain. The
// account is registered by the operator.
package acmedns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/endpoint"
)

// Config is an account, as its registration gave it.
type Config struct {
	URL        string // of the server: https, or http on a loopback address
	Username   string
	Password   dns.Secret
	Subdomain  string
	FullDomain string
	// Transport is nil for the default one.
	Transport http.RoundTripper
}

// A Provider sets the TXT records of one account, which has two.
type Provider struct {
	c      Config
	url    *url.URL
	client *http.Client
}

var _ dns.Provider = (*Provider)(nil)

// Format prints the account's full domain, whatever the verb.
func (p *Provider) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.c.FullDomain) }

// New returns a provider. It asks nobody anything yet.
func New(c Config) (*Provider, error) {
	u, err := endpoint.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	c.FullDomain = strings.ToLower(strings.TrimSuffix(c.FullDomain, "."))
	if !strings.HasPrefix(c.FullDomain, strings.ToLower(c.Subdomain)+".") {
		return nil, errors.New("full_domain must begin with the subdomain and a dot, as the registration gave both")
	}
	return &Provider{c, u.JoinPath("update"), endpoint.NewClient(c.Transport)}, nil
}

// Present sets the record. The server forgets the older of its two.
func (p *Provider) Present(ctx context.Context, r dns.Record) error {
	if r.Name != p.c.FullDomain {
		return fmt.Errorf("the record has to stand at %s, which is not this account's: make _acme-challenge of the name a CNAME to %s", r.Name, p.c.FullDomain)
	}
	body, err := json.Marshal(map[string]string{"subdomain": p.c.Subdomain, "txt": r.Value})
	if err != nil {
		return err
	}
	return endpoint.Post(ctx, p.client, p.url, body, func(h http.Header) {
		h.Set("X-Api-User", p.c.Username)
		h.Set("X-Api-Key", string(p.c.Password))
	})
}

// CleanUp does nothing: the server has no such call, and forgets by itself.
func (p *Provider) CleanUp(context.Context, dns.Record) error { return nil }
