// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
)

// An ImportRequest is a certificate that was made elsewhere, and what is to become
// of it.
type ImportRequest struct {
	// Request says how it is renewed. Names must be empty: they are the leaf's. Key is
	// the type of the next keys; zero is that of the given one, if Keyturn makes
	// such.
	Request
	// Chain is DER, the leaf first; the root may be left out.
	Chain [][]byte
	// Key is the leaf's private key.
	Key crypto.Signer
}

// Import makes a certificate that exists already the first generation of a managed
// certificate, and returns when that is on the bus for its group: from then on the
// request's issuer renews it, with a new key each time. The chain must be one that
// can be served now: issuer.Check passes it. If it cannot be imported, nothing
// stays behind.
//
// The error may be an *InvalidError, an *ExistsError, a *names.Error or one of
// issuer.Check.
func (m *Manager) Import(ctx context.Context, r ImportRequest) (*Managed, error) {
	leaf, err := r.look()
	if err != nil {
		return nil, fmt.Errorf("importing a certificate: %w", err)
	}
	spec, err := m.spec(ctx, r.Request)
	if err != nil {
		return nil, err
	}
	return m.firstly(ctx, spec, r.Force, func(ctx context.Context, c *Managed) (*Managed, error) {
		return m.bringIn(ctx, c, r, leaf)
	})
}

// look checks what is brought along, and completes the request from it.
func (r *ImportRequest) look() (*x509.Certificate, error) {
	switch {
	case len(r.Names) > 0:
		return nil, &InvalidError{"the names of an imported certificate are those in it: give none"}
	case len(r.Chain) == 0 || r.Key == nil:
		return nil, &InvalidError{"a certificate and its private key are needed"}
	}
	leaf, err := x509.ParseCertificate(r.Chain[0])
	if err != nil {
		return nil, &InvalidError{fmt.Sprintf("the first certificate does not parse: %v", err)}
	}
	r.Names = leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		r.Names = append(r.Names, ip.String())
	}
	if len(r.Names) == 0 {
		return nil, &InvalidError{fmt.Sprintf("the first certificate (%s) has no DNS name and no IP address as subject alternative name", leaf.Subject)}
	}
	csr, err := issuer.NewRequest(r.Key, r.Names)
	if err != nil {
		return nil, err
	}
	if leaf, err = issuer.Check(r.Chain, csr, time.Now()); err != nil {
		return nil, err
	}
	if known, err := issuer.ParseKeyType(string(issuer.KeyTypeOf(r.Key.Public()))); err == nil && r.Request.Key == "" {
		r.Request.Key = known
	}
	return leaf, nil
}

// bringIn commits and publishes the first generation of c.
func (m *Manager) bringIn(ctx context.Context, c *Managed, r ImportRequest, leaf *x509.Certificate) (*Managed, error) {
	n, err := m.prepareGroup(ctx, c)
	if err != nil {
		return nil, err
	}
	cert, err := m.newGeneration(c, 1, n, r.Chain, leaf, r.Key)
	if err != nil {
		return nil, err
	}
	for {
		done, err := m.commit(ctx, c, cert, event.Record{
			At: time.Now(), Reason: event.ReasonImported, Serial: leaf.SerialNumber.Bytes(), NotAfter: leaf.NotAfter,
		})
		switch {
		case err == nil:
			crash.Point(crash.Imported)
			m.logger.Info("certificate is imported", "managed_id", c.ID, "names", c.Spec.Names, "issuer", c.Spec.Issuer, "serial", fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), "not_after", leaf.NotAfter)
			return done, m.copy(ctx, done)
		case !conflict(err):
			return nil, err
		}
		// Another manager looks after it already: its first generation may be under way.
		if c, err = m.Get(ctx, c.ID); err != nil {
			return nil, err
		}
		if c.Removed || c.Generation > 0 {
			return nil, errors.New("another manager came in between")
		}
	}
}
