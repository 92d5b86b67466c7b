// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/issuer/policy"
)

// A CAInfo is what people are told of a built-in CA.
type CAInfo struct {
	// Name is its name in the shared configuration.
	Name               string
	Root, Intermediate *x509.Certificate
	// Permitted and Excluded are the name constraints in both, and Policy is what
	// the settings allow.
	Permitted, Excluded policy.Names
	Policy              config.CAPolicy
	// List is the number of the newest list of what is revoked; 0 if there is none.
	List uint64
	// Records are the certificates that were signed by hand, and those that are
	// revoked, until some time after their end, by serial number.
	Records []event.CARecord
}

// CA returns a built-in CA by its name in the shared configuration; "" is the
// default issuer, or the first of this type by name. One that was never used is
// made. The error may be an *InvalidError.
func (m *Manager) CA(ctx context.Context, name string) (*CAInfo, error) {
	b, err := m.builtIn(ctx, name)
	if err != nil {
		return nil, err
	}
	i := &CAInfo{
		Name: b.name, Root: b.Root(), Intermediate: b.Intermediate(),
		Permitted: b.Permitted(), Excluded: b.Excluded(), Policy: b.config.Policy,
	}
	first, _, err := m.caRecords(ctx, b.name, listShard)
	if err != nil {
		return nil, err
	}
	i.List = first.List
	i.Records, err = m.allRecords(ctx, b.name)
	return i, err
}

// InitCA adds a built-in CA of these settings to the shared configuration, which it
// may begin, and makes it. With nil settings, one that is configured and was never
// used is made, too. The error is an *InvalidError if there is an issuer of that
// name.
func (m *Manager) InitCA(ctx context.Context, name string, c *config.LocalCA) (*CAInfo, error) {
	for {
		text, at, err := m.ConfigText(ctx)
		if err != nil && !errors.Is(err, ErrNoConfig) {
			return nil, err
		}
		settings := c
		if c == nil {
			settings = new(config.LocalCA)
		}
		switch text, err = config.AddIssuer(text, name, config.Issuer{Type: "local", Local: settings}); {
		case errors.Is(err, config.ErrExists):
			return m.initKnown(ctx, name, c)
		case err != nil:
			return nil, err
		}
		if _, err := m.UpdateConfig(ctx, text, at); err == nil {
			return m.CA(ctx, name)
		} else if !conflict(err) {
			return nil, err
		}
	}
}

// initKnown makes a CA that is configured already.
func (m *Manager) initKnown(ctx context.Context, name string, c *config.LocalCA) (*CAInfo, error) {
	_, _, err := get[*event.IssuerState](ctx, m, event.IssuerKey(name))
	switch {
	case err == nil:
		return nil, &InvalidError{fmt.Sprintf("issuer %q is there already: `keyturn ca show --issuer %s` shows it, and another CA needs another name", name, name)}
	case !isNotFound(err):
		return nil, err
	case c != nil:
		return nil, &InvalidError{fmt.Sprintf("issuer %q is in the shared configuration already, and was never used: give no settings here, or change them there with `keyturn conf update`", name)}
	}
	return m.CA(ctx, name)
}

// builtIn opens a built-in CA by its name, as CA does.
func (m *Manager) builtIn(ctx context.Context, name string) (*builtIn, error) {
	shared, _, err := m.shared(ctx)
	if err != nil {
		return nil, err
	}
	if name, err = localName(shared, name); err != nil {
		return nil, err
	}
	i, err := m.issuer(ctx, name)
	if err != nil {
		return nil, err
	}
	b, ok := i.(*builtIn)
	if !ok {
		return nil, fmt.Errorf("an issuer of type local is a %T", i)
	}
	return b, nil
}

// localName returns the name of an issuer of type local.
func localName(shared *config.Shared, name string) (string, error) {
	if name != "" {
		c, ok := shared.Issuers[name]
		switch {
		case !ok:
			return "", noIssuer(name)
		case c.Local == nil:
			return "", &InvalidError{fmt.Sprintf("issuer %q is of type %s, and this is for type local, the built-in CA: `keyturn issuer ls` lists them", name, c.Type)}
		}
		return name, nil
	}
	var all []string
	for name, c := range shared.Issuers {
		if c.Local != nil {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	switch first, _ := issuersOf(Request{}, shared); {
	case len(all) == 0:
		return "", &InvalidError{"no issuer is of type local, the built-in CA: `keyturn ca init NAME` makes one"}
	case slices.Contains(all, first):
		return first, nil
	}
	return all[0], nil
}

// SignByHand has a built-in CA, named as for CA, sign a request by its settings, and
// remembers the certificate, so that it can be revoked: RevokeSerial. Nobody renews
// it. lifetime is how long from now it is valid, 0 the settings' default. The error
// may wrap issuer.ErrRefused.
func (m *Manager) SignByHand(ctx context.Context, name string, csr *x509.CertificateRequest, lifetime time.Duration) (chain [][]byte, err error) {
	b, err := m.builtIn(ctx, name)
	if err != nil {
		return nil, err
	}
	if chain, err = b.Issue(ctx, csr, lifetime); err != nil {
		return nil, fmt.Errorf("issuer %q: %w", b.name, err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", b.name, err)
	}
	crash.Point(crash.SignedByHand)
	r := event.CARecord{Serial: leaf.SerialNumber.Bytes(), NotAfter: leaf.NotAfter, Signed: time.Now(), Names: short(issuer.NamesOf(leaf))}
	if err := b.note(ctx, r, func(*event.CARecord) {}); err != nil {
		return nil, fmt.Errorf("what is signed could not be written down, and is thrown away: %w", err)
	}
	m.logger.Info("certificate is signed by hand", "issuer", b.name, "names", issuer.NamesOf(leaf), "serial", fmt.Sprintf("%x", r.Serial), "not_after", leaf.NotAfter)
	return chain, nil
}

// A RevokedCertificate is what RevokeSerial or RevokeLeaf revoked.
type RevokedCertificate struct {
	// Issuer is whose certificate it was.
	Issuer string
	Serial []byte
	// ID and Generation are those of the managed certificate; "" and 0 if it is none.
	ID         string
	Generation uint64
}

// RevokeSerial revokes the certificate with a serial number that a built-in CA,
// named as for CA, signed: one of a managed certificate's history, as Revoke does,
// or one that was signed by hand. It is on every list that CRL makes from then on.
//
// The error is an *InvalidError if no such certificate is known, or it has ended.
func (m *Manager) RevokeSerial(ctx context.Context, name string, serial []byte, reason issuer.Reason) (*RevokedCertificate, error) {
	b, err := m.builtIn(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := b.revokeKnown(ctx, serial, reason)
	if r == nil && err == nil {
		err = &InvalidError{fmt.Sprintf("issuer %q knows no certificate with the serial number %x that has not ended: give the certificate itself", b.name, serial)}
	}
	return r, err
}

// RevokeLeaf is RevokeSerial with the certificate itself, which the CA must have
// signed; one that nothing is remembered of can be revoked, too.
func (m *Manager) RevokeLeaf(ctx context.Context, name string, leaf *x509.Certificate, reason issuer.Reason) (*RevokedCertificate, error) {
	b, err := m.builtIn(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := b.Signed(leaf); err != nil {
		return nil, fmt.Errorf("issuer %q: %w", b.name, err)
	}
	serial := leaf.SerialNumber.Bytes()
	if r, err := b.revokeKnown(ctx, serial, reason); r != nil || err != nil {
		return r, err
	}
	return &RevokedCertificate{Issuer: b.name, Serial: serial}, b.Revoke(ctx, leaf, nil, reason)
}

// revokeKnown revokes what is remembered, or managed; nil if it is neither.
func (b *builtIn) revokeKnown(ctx context.Context, serial []byte, reason issuer.Reason) (*RevokedCertificate, error) {
	if len(serial) == 0 {
		return nil, &InvalidError{"a serial number is needed"}
	}
	r := &RevokedCertificate{Issuer: b.name, Serial: serial}
	records, _, err := b.m.caRecords(ctx, b.name, shardOf(serial))
	if err != nil {
		return nil, err
	}
	if i, known := slices.BinarySearchFunc(records.Records, serial, bySerial); known && !records.Records[i].Signed.IsZero() {
		if err := b.revoke(ctx, records.Records[i], reason); err != nil {
			return nil, err
		}
		b.m.logger.Warn("certificate is revoked", "issuer", b.name, "names", records.Records[i].Names, "serial", fmt.Sprintf("%x", serial), "reason", reason.String())
		return r, nil
	}
	all, err := b.m.all(ctx)
	if all == nil {
		return nil, err
	}
	for _, c := range all {
		for _, past := range c.History {
			if past.Issuer == b.name && bytes.Equal(past.Serial, serial) {
				r.ID, r.Generation = c.ID, past.Generation
				return r, b.m.Revoke(ctx, c.ID, RevokeOptions{Reason: reason, Generation: past.Generation})
			}
		}
	}
	return nil, err // a state that cannot be read may be the one
}

// CRL makes a new list of what a built-in CA, named as for CA, has revoked (RFC
// 5280 section 5), in DER: all that was revoked before the call, until some time
// after each one's end. Its number is above that of every list that was asked for
// before. The second one is the root's, on which nothing ever is: some look at the
// lists of all who signed a chain.
func (m *Manager) CRL(ctx context.Context, name string) (lists [][]byte, err error) {
	b, err := m.builtIn(ctx, name)
	if err != nil {
		return nil, err
	}
	var number uint64
	err = b.updateRecords(ctx, listShard, func(r *event.CARecords) error { // before the rest is read: a higher number never knows less than an earlier one was to know
		r.List++
		number = r.List
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("numbering the list: %w", err)
	}
	records, err := m.allRecords(ctx, b.name)
	if err != nil {
		return nil, err
	}
	var revoked []localca.Revocation
	for _, r := range records {
		if !r.Revoked.IsZero() && time.Now().Before(b.Keep(r.NotAfter)) {
			revoked = append(revoked, localca.Revocation{Serial: new(big.Int).SetBytes(r.Serial), At: r.Revoked, Reason: issuer.Reason(r.Reason)})
		}
	}
	list, err := b.CA.CRL(number, revoked)
	if err != nil {
		return nil, err
	}
	root, err := b.RootCRL(number)
	return [][]byte{list, root}, err
}
