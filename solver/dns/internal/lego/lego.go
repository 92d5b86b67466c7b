// SPDX-License-Identifier: Apache-2.0

// Package lego makes providers of the DNS services of github.com/go-acme/lego.
//
// A provider of lego's is told a domain name and a key authorization. It makes
// name and value of the record itself, and asks a name server that is one for the
// whole process where the name's CNAMEs lead and in which zone they end. Here that
// is all known already, and may come from different resolvers for different
// solvers. So lego gets an invented name and, as its name server, a [server] on a
// loopback port that knows of this name what [dns.Record] says, and nothing else.
package lego

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-acme/lego/v5/challenge"

	"github.com/keyturn/keyturn/solver/dns"
)

// A Provider is one of lego's.
type Provider struct {
	open  func() (challenge.Provider, error)
	keeps bool

	mu     sync.Mutex
	opened challenge.Provider // nil before the first call; guarded by mu
}

var _ dns.Keeper = (*Provider)(nil)

// New returns a provider that open makes when it is first needed, since some ask
// their service for something then. Keeps says that taking away a record leaves
// the others of its name.
func New(keeps bool, open func() (challenge.Provider, error)) *Provider {
	return &Provider{open: open, keeps: keeps}
}

// KeepsOthers reports whether taking away a record leaves the others of its name.
func (p *Provider) KeepsOthers() bool { return p.keeps }

// Present adds the record.
func (p *Provider) Present(ctx context.Context, r dns.Record) error {
	return p.call(r, func(c challenge.Provider, domain string) error {
		return c.Present(ctx, domain, token(r), r.KeyAuthorization)
	})
}

// CleanUp takes the record away.
func (p *Provider) CleanUp(ctx context.Context, r dns.Record) error {
	return p.call(r, func(c challenge.Provider, domain string) error {
		return c.CleanUp(ctx, domain, token(r), r.KeyAuthorization)
	})
}

// token is by what a provider finds a record that it added again: each has its
// own.
func token(r dns.Record) string { return r.Name + " " + r.Value }

func (p *Provider) call(r dns.Record, do func(c challenge.Provider, domain string) error) error {
	if r.Zone == "" {
		return errors.New("the zone that the name is in is not known")
	}
	s, err := start()
	if err != nil {
		return fmt.Errorf("listening on a loopback port, for the questions of the service's library: %w", err)
	}
	c, err := p.provider()
	if err != nil {
		return err
	}
	domain, forget := s.learn(r)
	defer forget()
	return do(c, domain)
}

// provider returns lego's; what failed is tried again the next time.
func (p *Provider) provider() (challenge.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened == nil {
		c, err := p.open()
		if err != nil {
			return nil, err
		}
		p.opened = c
	}
	return p.opened, nil
}
