// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

// An Adoption is what became of an event that a replica holds.
type Adoption int

// What can become of it.
const (
	// Present: the log has it, or what is newer.
	Present Adoption = iota
	// Adopted: the log knew nothing of the certificate, and manages it again.
	Adopted
	// Advanced: the log had an older generation.
	Advanced
	// Skipped: it is the end of a certificate that the log knows nothing of.
	Skipped
)

// Adopt takes the event of a certificate that a replica holds, and that the log may
// have lost: what it says of a certificate is the newest generation again, under
// the same id. Its names are managed as before. How it is renewed is not in it: by
// the given issuer, "" being the default one, with the other defaults of the shared
// configuration. The event has to be signed by a manager. A newer generation on the
// log stays. It may be called again.
func (m *Manager) Adopt(ctx context.Context, data []byte, by string) (id string, a Adoption, err error) {
	e, err := event.Trusted(m.tenant, data) // to know for which key it was signed
	if err == nil {
		e, err = m.open(ctx, e.Key, data)
	}
	if err != nil {
		return "", Skipped, fmt.Errorf("what a replica holds: %w", err)
	}
	switch b := e.Body.(type) {
	case *event.Certificate:
		if a, err = m.adopt(ctx, e, b, data, by); err != nil {
			err = fmt.Errorf("restoring %s (%s): %w", b.ID, short(b.Names), err)
		}
		return b.ID, a, err
	case *event.Removal:
		_, err := m.Get(ctx, b.ID)
		var none *NotFoundError
		switch {
		case errors.As(err, &none):
			return b.ID, Skipped, nil
		case err != nil:
			return b.ID, Skipped, err
		}
		return b.ID, Present, nil // replicas prove a removal themselves
	}
	return "", Skipped, fmt.Errorf("what a replica holds: %w", event.ErrUnsupported)
}

func (m *Manager) adopt(ctx context.Context, e *event.Event, cert *event.Certificate, data []byte, by string) (Adoption, error) {
	if err := m.setEpoch(ctx, cert.Epoch+1); err != nil {
		return Skipped, fmt.Errorf("raising the epoch of the log: %w", err)
	}
	for {
		a := Advanced
		c, err := m.Get(ctx, cert.ID)
		var none *NotFoundError
		if errors.As(err, &none) {
			a = Adopted
			c, err = m.lostSpec(ctx, cert, by)
		}
		if err != nil {
			return Skipped, err
		}
		if c.Removed || !c.Less(cert.Version) {
			return Present, m.copy(ctx, c)
		}
		if a == Adopted {
			if err := m.holdNames(ctx, c); err != nil {
				return Skipped, err
			}
		}
		next := *c
		next.Certificate, next.Issued, next.Failure = cert, e.Time, nil
		serial, end := serialAndEnd(cert)
		done, err := m.turn(ctx, &next, cert.Version, data, event.Record{At: e.Time, Reason: event.ReasonRestored, Serial: serial, NotAfter: end})
		if conflict(err) {
			continue
		}
		if err != nil {
			return Skipped, err
		}
		return a, m.copy(ctx, done)
	}
}

// serialAndEnd is the serial number and the end of what was issued.
func serialAndEnd(c *event.Certificate) ([]byte, time.Time) {
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return nil, c.NotAfter
	}
	return leaf.SerialNumber.Bytes(), leaf.NotAfter
}

// lostSpec is the state of a certificate of which nothing is known but a
// generation, before that.
func (m *Manager) lostSpec(ctx context.Context, cert *event.Certificate, by string) (*Managed, error) {
	r := Request{Names: cert.Names, Group: cert.Group, Issuer: by}
	if leaf, err := x509.ParseCertificate(cert.Chain[0]); err == nil {
		if known, err := issuer.ParseKeyType(string(issuer.KeyTypeOf(leaf.PublicKey))); err == nil {
			r.Key = known
		}
	}
	spec, err := m.spec(ctx, r)
	if err != nil {
		return nil, err
	}
	spec.Created = cert.NotBefore
	return &Managed{State: event.State{ID: cert.ID, Spec: *spec}}, nil
}

// holdNames makes an id one of the holders of its names.
func (m *Manager) holdNames(ctx context.Context, c *Managed) error {
	for {
		n, at, err := get[*event.Names](ctx, m, event.NamesKey(c.Spec.Group, c.Spec.Names))
		if isNotFound(err) {
			n, err = &event.Names{Group: c.Spec.Group, Names: c.Spec.Names, Newest: &c.Spec}, nil
		}
		if err != nil || slices.Contains(n.Holders, c.ID) {
			return err
		}
		n.Holders = append(n.Holders, c.ID)
		if _, err = m.append(ctx, at, n); !conflict(err) {
			return err
		}
	}
}
