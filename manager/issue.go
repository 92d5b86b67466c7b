// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/seal"
)

// issueTimeout bounds one issuance.
const issueTimeout = 5 * time.Minute

// means is what is needed to make a generation.
type means struct {
	epoch  uint64
	group  *seal.PublicKey
	asked  string // the issuer's name
	issuer issuer.Issuer
}

// prepare reads from the bus what is needed to have a certificate made by an
// issuer. A *busError says that the bus could not be read; any other error,
// that what is there will not do.
func (m *Manager) prepare(ctx context.Context, c *Managed, asked string) (n means, err error) {
	if n, err = m.prepareGroup(ctx, c); err != nil {
		return n, err
	}
	n.asked = asked
	n.issuer, err = m.issuer(ctx, asked)
	return n, err
}

// prepareGroup is prepare for what no issuer is needed for.
//
// What is not marked needs no newer readings than there are. Who raises the epoch
// then marks what was lost, and who rotates a group's key then marks what is sealed to
// the former one: whoever claims before the mark is refused the commit, and whoever
// claims after it sees the mark. What is made of a former epoch of anything else is
// what was under way when it was raised, and a former key is not retired while the
// newest generation is sealed to it.
func (m *Manager) prepareGroup(ctx context.Context, c *Managed) (n means, err error) {
	known := ctx
	if c.Mark == nil {
		known = asOf(ctx, time.Time{})
	}
	if n.epoch, err = m.epoch(known); err != nil {
		return n, err
	}
	n.group, err = m.groupKey(known, c.Spec.Group)
	if id, ok := c.sealedTo(); err == nil && ok && id == n.group.ID() {
		return n, nil
	}
	n.group, err = m.groupKey(ctx, c.Spec.Group)
	return n, err
}

// A generation is what becomes of a claim.
type generation struct {
	cert  *event.Certificate
	leaf  *x509.Certificate
	order string // its address, of one that has failed, too; "" if none was made, or the issuer keeps none
}

// issue obtains the claimed generation: key and request, chain, check, seal.
// With a draft it goes on with that.
func (m *Manager) issue(ctx context.Context, k *keeper, with means, d *draft) (g generation, err error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	c := k.now()
	if d == nil {
		if d, err = newDraft(&c.Spec); err != nil {
			return g, err
		}
	}
	crash.Point(crash.Drafted)
	chain, err := m.order(ctx, k, with, d)
	crash.Point(crash.Answered)
	g.order = d.order
	switch {
	case err != nil && ctx.Err() != nil && outer.Err() == nil:
		return g, fmt.Errorf("issuer %q has not come to an end within %s, and is asked again later: %w", with.asked, issueTimeout, err)
	case err != nil:
		return g, fmt.Errorf("issuer %q: %w", with.asked, err)
	}
	if g.leaf, err = issuer.Check(chain, d.csr, time.Now()); err != nil {
		return g, &answerError{with.asked, err}
	}
	m.logger.Debug("certificate is issued", "managed_id", c.ID, "generation", c.Claim.Generation, "serial", fmt.Sprintf("%x", g.leaf.SerialNumber.Bytes()))
	g.cert, err = m.newGeneration(c, c.Claim.Generation, with, chain, g.leaf, d.key)
	return g, err
}

// An answerError says that an issuer's chain cannot be used.
type answerError struct {
	issuer string
	err    error
}

func (e *answerError) Error() string {
	return fmt.Sprintf("the answer of issuer %q is refused: %v: nothing of it is served, and another is ordered later; if it stays so, tell the CA, or use another issuer", e.issuer, e.err)
}
func (e *answerError) Unwrap() error { return e.err }

// newGeneration is what replicas get: the key is sealed to their group.
func (m *Manager) newGeneration(c *Managed, generation uint64, with means, chain [][]byte, leaf *x509.Certificate, key crypto.Signer) (*event.Certificate, error) {
	cert := &event.Certificate{
		Group: c.Spec.Group, ID: c.ID,
		Version: event.Version{Epoch: max(with.epoch, c.Epoch), Generation: generation},
		Names:   c.Spec.Names, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Chain: chain,
		Algorithm: leaf.PublicKeyAlgorithm.String(), Client: forClients(leaf),
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	defer clear(pkcs8)
	return cert, cert.SealKey(m.tenant, with.group, pkcs8)
}

// forClients reports whether TLS clients may use the leaf (RFC 5280 section
// 4.2.1.12: without the extension every use is allowed).
func forClients(leaf *x509.Certificate) bool {
	return len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}
