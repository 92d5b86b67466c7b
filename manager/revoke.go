// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/seal"
)

// RevokeOptions say what is revoked, and how.
type RevokeOptions struct {
	// Reason is what the CA publishes.
	Reason issuer.Reason
	// ByKey proves the right to revoke by the certificate's own key instead of the
	// account that ordered it. This manager must hold the group's private keys
	// (Config.Keys), and only the newest generation's key is still to be had.
	ByKey bool
	// Generation is which one; 0 is the newest. An older one's certificate is asked
	// of the CA, by its order.
	Generation uint64
	// Remove ends the management of the certificate afterwards. Without it, a newest
	// generation that is revoked is due at once, since clients may refuse it.
	Remove bool
}

// Revoke has the CA take back one generation of a managed certificate, and writes
// down that it did. For issuer.KeyCompromise the mark on the newest generation is
// event.ReasonCompromised, else event.ReasonRekey. What is revoked already can be
// revoked again.
//
// The error may be a *NotFoundError, a *RemovedError, an *InvalidError, or what
// the CA said.
func (m *Manager) Revoke(ctx context.Context, id string, o RevokeOptions) error {
	c, err := m.Get(ctx, id)
	if err != nil {
		return err
	}
	if c.Removed && (o.Generation == 0 || o.Generation == c.Generation) {
		return &RemovedError{id}
	}
	r, err := c.record(o.Generation)
	if err != nil {
		return err
	}
	if err := m.revokeAtCA(ctx, c, r, o); err != nil {
		return fmt.Errorf("revoking generation %d of %s (%s): %w", r.Generation, id, short(c.Spec.Names), err)
	}
	crash.Point(crash.RevokedAtCA)
	m.logger.Warn("certificate is revoked", "managed_id", id, "names", c.Spec.Names, "version", r.Version.String(), "serial", fmt.Sprintf("%x", r.Serial), "reason", o.Reason.String())
	if err := m.noteRevoked(ctx, id, r.Version, o); err != nil {
		return fmt.Errorf("generation %d of %s is revoked, and this could not be written down: %w", r.Generation, id, err)
	}
	if o.Remove && !c.Removed {
		return m.Remove(ctx, id)
	}
	return nil
}

// record returns the history's record of a generation, 0 for the newest.
func (c *Managed) record(generation uint64) (event.Record, error) {
	if generation == 0 {
		generation = c.Generation
	}
	for _, r := range c.History {
		if r.Generation == generation && r.Reason != event.ReasonRemoved {
			return r, nil
		}
	}
	if generation == 0 {
		return event.Record{}, &InvalidError{fmt.Sprintf("%s has no certificate yet", c.ID)}
	}
	return event.Record{}, &InvalidError{fmt.Sprintf("the history of %s has no certificate of generation %d: `keyturn cert history %s` shows it", c.ID, generation, c.ID)}
}

// revokeAtCA revokes the certificate of a record.
func (m *Manager) revokeAtCA(ctx context.Context, c *Managed, r event.Record, o RevokeOptions) error {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	name := c.signer(r)
	i, err := m.issuer(ctx, name)
	if err != nil {
		return err
	}
	revoker, ok := i.(issuer.Revoker)
	if !ok {
		return &InvalidError{fmt.Sprintf("issuer %q cannot revoke: end what trusts the certificate, or wait for its end, %s", name, r.NotAfter.UTC().Format(time.RFC3339))}
	}
	if b, ok := i.(*builtIn); ok && !o.ByKey && r.Issuer != "" { // it needs no certificate to revoke what it has signed
		return b.revoke(ctx, event.CARecord{Serial: r.Serial, NotAfter: r.NotAfter, Names: short(c.Spec.Names)}, o.Reason)
	}
	leaf, err := m.leafOf(ctx, c, r, i)
	if err != nil {
		return err
	}
	var key crypto.Signer
	if o.ByKey {
		if key, err = m.keyOf(c, r); err != nil {
			return err
		}
	}
	err = revoker.Revoke(ctx, leaf, key, o.Reason)
	if err != nil && r.Issuer == "" {
		return fmt.Errorf("%w; it was imported, and signed by %q: if issuer %q is not that CA, ask that one to revoke it", err, leaf.Issuer.String(), name)
	}
	return err
}

// signer is the issuer whose certificate a record is of; that of the spec where the
// record does not say: it may be the CA of what was brought along.
func (c *Managed) signer(r event.Record) string {
	if r.Issuer != "" {
		return r.Issuer
	}
	return c.Spec.Issuer
}

// leafOf returns the certificate of a record: the state has the newest, and the CA
// may have what its order became.
func (m *Manager) leafOf(ctx context.Context, c *Managed, r event.Record, i issuer.Issuer) (*x509.Certificate, error) {
	if c.Certificate != nil && c.Version == r.Version {
		return c.Leaf()
	}
	keeper, ok := i.(issuer.Keeper)
	if !ok || r.Order == "" {
		return nil, &InvalidError{fmt.Sprintf("the certificate of generation %d is not kept: only the newest can be revoked", r.Generation)}
	}
	chain, err := keeper.Certificate(ctx, r.Order)
	if err != nil {
		return nil, fmt.Errorf("asking for the certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("asking for the certificate: %w", err)
	}
	if !slices.Equal(leaf.SerialNumber.Bytes(), r.Serial) {
		return nil, fmt.Errorf("the order %s is that of another certificate, serial %x", r.Order, leaf.SerialNumber.Bytes())
	}
	return leaf, nil
}

// keyOf returns the private key of the newest generation.
func (m *Manager) keyOf(c *Managed, r event.Record) (crypto.Signer, error) {
	if c.Certificate == nil || c.Version != r.Version {
		return nil, &InvalidError{"the keys of former generations are not kept: revoke it by the account"}
	}
	keys, err := m.keys(c.Spec.Group)
	if err != nil {
		return nil, fmt.Errorf("reading the keys of group %q: %w", c.Spec.Group, err)
	}
	pkcs8, err := c.Certificate.OpenKey(m.tenant, keys)
	if errors.Is(err, seal.ErrNoKey) {
		return nil, &InvalidError{fmt.Sprintf("the certificate's key is sealed to group %q, whose private key is not here: run this where it is, or revoke by the account", c.Spec.Group)}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the certificate's key: %w", err)
	}
	defer clear(pkcs8)
	return parseKey(pkcs8)
}

// noteRevoked writes down that a generation is revoked, and marks what is the
// newest, unless its management is about to end.
func (m *Manager) noteRevoked(ctx context.Context, id string, v event.Version, o RevokeOptions) error {
	for {
		c, err := m.Get(ctx, id)
		if err != nil {
			return err
		}
		next := c.State
		next.History = slices.Clone(c.History)
		for i := range next.History {
			if r := &next.History[i]; r.Version == v && r.Revoked.IsZero() {
				r.Revoked = time.Now()
			}
		}
		if c.Version == v && !o.Remove {
			reason := event.ReasonRekey
			switch {
			case o.Reason == issuer.KeyCompromise:
				reason = event.ReasonCompromised
			case c.Mark != nil:
				reason = c.Mark.Reason
			}
			next.Mark, next.Failure, next.Order = &event.Mark{Reason: reason, At: time.Now()}, nil, nil
		}
		if _, err = m.append(ctx, c.Position, &next); !conflict(err) {
			crash.Point(crash.RevocationNoted)
			return err
		}
	}
}
