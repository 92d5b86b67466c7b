// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
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
	if n.epoch, err = m.epoch(ctx); err != nil {
		return n, err
	}
	if n.group, err = m.groupKey(ctx, spec.Group); err != nil {
		return n, err
	}
	n.issuer, err = m.issuer(ctx, spec.Issuer)
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
	cert := &event.Certificate{
		Group: c.Spec.Group, ID: c.ID,
		Version: event.Version{Epoch: max(with.epoch, c.Epoch), Generation: c.Claim.Generation},
		Names:   c.Spec.Names, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Chain: chain,
		Algorithm: leaf.PublicKeyAlgorithm.String(), Client: forClients(leaf),
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the private key: %w", err)
	}
	defer clear(pkcs8)
	return cert, leaf, cert.SealKey(m.tenant, with.group, pkcs8)
}

// forClients reports whether TLS clients may use the leaf (RFC 5280 section
// 4.2.1.12: without the extension every use is allowed).
func forClients(leaf *x509.Certificate) bool {
	return len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// A cachedIssuer is good while the configuration it was made from, and its
// state, are the newest.
type cachedIssuer struct {
	config, state bus.Position
	issuer        issuer.Issuer
}

// issuer returns the named issuer of the shared configuration.
func (m *Manager) issuer(ctx context.Context, name string) (issuer.Issuer, error) {
	shared, at, err := m.shared(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := shared.Issuers[name]
	if !ok {
		return nil, noIssuer(name)
	}
	state, stateAt, err := get[*event.IssuerState](ctx, m, event.IssuerKey(name))
	if isNotFound(err) {
		state, stateAt, err = m.found(ctx, name, c)
	}
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", name, err)
	}
	m.mu.Lock()
	cached := m.issuers[name]
	m.mu.Unlock()
	if cached.config == at && cached.state == stateAt {
		return cached.issuer, nil
	}
	ca, err := m.openIssuer(state, c)
	if err != nil {
		return nil, &InvalidError{fmt.Sprintf("issuer %q: %v", name, err)}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.issuers[name] = cachedIssuer{at, stateAt, ca}
	return ca, nil
}

func localConfig(c *config.LocalCA) localca.Config {
	return localca.Config{
		Name: c.Name, KeyType: c.Key,
		Lifetime: time.Duration(c.Lifetime), MaxLifetime: time.Duration(c.MaxLifetime),
		RootLifetime: time.Duration(c.RootLifetime), IntermediateLifetime: time.Duration(c.IntermediateLifetime),
		Backdate: time.Duration(c.Backdate),
	}
}

// found makes an issuer that is used for the first time. Of several managers
// that do so at once, one's issuer is kept, and all get that.
func (m *Manager) found(ctx context.Context, name string, c config.Issuer) (*event.IssuerState, bus.Position, error) {
	ca, err := localca.New(localConfig(c.Local))
	if err != nil {
		return nil, bus.Position{}, err
	}
	s := &event.IssuerState{Name: name, Kind: c.Type, Roots: [][]byte{ca.Root().Raw}}
	if s.Sealed, err = ca.Seal(m.identity.Sealing[0].Public(), s.Associated(m.tenant)); err != nil {
		return nil, bus.Position{}, err
	}
	at, err := m.append(ctx, bus.Position{}, s)
	if conflict(err) {
		return get[*event.IssuerState](ctx, m, event.IssuerKey(name))
	}
	return s, at, err
}

func (m *Manager) openIssuer(s *event.IssuerState, c config.Issuer) (*localca.CA, error) {
	if s.Kind != c.Type {
		return nil, fmt.Errorf("it was made as type %q and is configured as %q: a new type needs a new name", s.Kind, c.Type)
	}
	return localca.Open(m.identity.Sealing, s.Associated(m.tenant), s.Sealed, localConfig(c.Local))
}

// Roots returns the CA certificates (DER) of a named issuer that is its own
// root, making the issuer if it was never used.
func (m *Manager) Roots(ctx context.Context, name string) ([][]byte, error) {
	if _, err := m.issuer(ctx, name); err != nil {
		return nil, err
	}
	s, _, err := get[*event.IssuerState](ctx, m, event.IssuerKey(name))
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", name, err)
	}
	if len(s.Roots) == 0 {
		return nil, errors.New("issuer " + name + " is not its own root")
	}
	return s.Roots, nil
}
