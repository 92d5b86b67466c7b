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
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/seal"
)

// issueTimeout bounds one issuance.
const issueTimeout = 5 * time.Minute

// means is what is needed to make a generation.
type means struct {
	epoch  uint64
	group  *seal.PublicKey
	issuer issuer.Issuer
}

// prepare reads from the bus what a spec needs. A *busError says that the bus
// could not be read; any other error, that what is there will not do.
func (m *Manager) prepare(ctx context.Context, spec *event.Spec) (n means, err error) {
	if n, err = m.prepareGroup(ctx, spec); err != nil {
		return n, err
	}
	n.issuer, err = m.issuer(ctx, spec.Issuer)
	return n, err
}

// prepareGroup is prepare for what no issuer is needed for.
func (m *Manager) prepareGroup(ctx context.Context, spec *event.Spec) (n means, err error) {
	if n.epoch, err = m.epoch(ctx); err != nil {
		return n, err
	}
	n.group, err = m.groupKey(ctx, spec.Group)
	return n, err
}

// issue obtains the claimed generation: new key, request, chain, check, seal.
func (m *Manager) issue(ctx context.Context, c *Managed, with means) (*event.Certificate, *x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	keyType, err := issuer.ParseKeyType(c.Spec.KeyType)
	if err != nil {
		return nil, nil, err
	}
	key, err := keyType.Generate()
	if err != nil {
		return nil, nil, err
	}
	csr, err := issuer.NewRequest(key, c.Spec.Names)
	if err != nil {
		return nil, nil, err
	}
	chain, err := with.issuer.Issue(ctx, csr, c.Spec.Lifetime)
	if err != nil {
		return nil, nil, fmt.Errorf("issuer %q: %w", c.Spec.Issuer, err)
	}
	leaf, err := issuer.Check(chain, csr, time.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("the answer of issuer %q is refused: %w", c.Spec.Issuer, err)
	}
	m.logger.Debug("certificate is issued", "managed_id", c.ID, "generation", c.Claim.Generation, "serial", fmt.Sprintf("%x", leaf.SerialNumber.Bytes()))
	cert, err := m.newGeneration(c, c.Claim.Generation, with, chain, leaf, key)
	return cert, leaf, err
}

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
