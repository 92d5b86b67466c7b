// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/crash"
)

// download fetches the certificate and chooses among its chains.
func (j *job) download(ctx context.Context, o acmez.Order) ([][]byte, error) {
	var got []acmez.Certificate
	_, err := j.ca.ask(ctx, "fetching the certificate", func(ctx context.Context) (err error) {
		got, err = j.client.GetCertificateChain(ctx, j.account, o.Certificate)
		return err
	})
	if gone(err) {
		return nil, &overError{err}
	}
	if err != nil {
		return nil, err
	}
	crash.Point(crash.Downloaded)
	var chains []chain
	for i, c := range got {
		parsed, err := parseChain(c.ChainPEM)
		if err != nil && i == 0 {
			return nil, fmt.Errorf("fetching the certificate at %s: %w", j.ca.config.Name, err)
		}
		if err == nil {
			chains = append(chains, parsed)
		}
	}
	chosen, found := choose(chains, j.ca.config.PreferredChain, time.Now())
	if !found {
		j.ca.config.Logger.WarnContext(ctx, "the CA offers no chain with the preferred issuer at its end", "issuer", j.ca.config.Name,
			"preferred", j.ca.config.PreferredChain, "taken", chosen.end())
	}
	return chosen.der(), nil
}

// A chain is one of those that a CA offers, the leaf first.
type chain []*x509.Certificate

// parseChain reads what RFC 8555 section 9.1 has: certificates in PEM, and nothing
// else.
func parseChain(text []byte) (chain, error) {
	var c chain
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("after %d certificates comes something that is none", len(c))
		}
		one, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", len(c)+1, err)
		}
		c, text = append(c, one), rest
	}
	if len(c) == 0 {
		return nil, fmt.Errorf("the chain is empty")
	}
	return c, nil
}

// choose returns the best chain: one that is valid now before one that is not, then
// one that ends at the preferred issuer, then the CA's own order. found says whether
// it ends there, or nothing is preferred.
func choose(chains []chain, preferred string, now time.Time) (best chain, found bool) {
	score := -1
	for _, c := range chains {
		points := 0
		if c.valid(now) {
			points += 2
		}
		if preferred == "" || c.end() == preferred {
			points++
		}
		if points > score {
			best, score = c, points
		}
	}
	return best, preferred == "" || best.end() == preferred
}

// end is the common name of whoever signed the last certificate.
func (c chain) end() string { return c[len(c)-1].Issuer.CommonName }

func (c chain) valid(now time.Time) bool {
	for _, one := range c {
		if now.Before(one.NotBefore) || now.After(one.NotAfter) {
			return false
		}
	}
	return true
}

func (c chain) der() [][]byte {
	var all [][]byte
	for _, one := range c {
		all = append(all, one.Raw)
	}
	return all
}
