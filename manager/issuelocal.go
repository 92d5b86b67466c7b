// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// localIssuer is the type "local", the built-in CA: it keeps its keys.
type localIssuer struct{}

func (localIssuer) found(m *Manager, s *event.IssuerState, shared *config.Shared) error {
	ca, err := localca.New(localConfig(shared.Issuers[s.Name].Local))
	if err != nil {
		return err
	}
	s.Roots = [][]byte{ca.Root().Raw}
	s.Sealed, err = ca.Seal(m.identity.Sealing[0].Public(), s.Associated(m.tenant))
	return err
}

func (localIssuer) open(m *Manager, s *event.IssuerState, shared *config.Shared) (issuer.Issuer, error) {
	c := shared.Issuers[s.Name].Local
	ca, err := localca.Open(m.identity.Sealing, s.Associated(m.tenant), s.Sealed, localConfig(c))
	if err != nil {
		return nil, err
	}
	return &builtIn{ca, m, s.Name, c}, nil
}

func (localIssuer) enrol(context.Context, *Manager, issuer.Issuer, *event.IssuerState, *config.Shared) (*event.IssuerState, error) {
	return nil, nil
}

func (localIssuer) tell(*Manager, *event.IssuerState, config.Issuer, *IssuerInfo) error { return nil }

func localConfig(c *config.LocalCA) localca.Config {
	return localca.Config{
		Name: c.Name, KeyType: c.Key,
		Lifetime: time.Duration(c.Lifetime), MaxLifetime: time.Duration(c.MaxLifetime),
		RootLifetime: time.Duration(c.RootLifetime), IntermediateLifetime: time.Duration(c.IntermediateLifetime),
		Backdate:  time.Duration(c.Backdate),
		Permitted: c.Permitted, Excluded: c.Excluded,
		Allowed: c.Policy.Names, Usages: c.Policy.Usages,
		CRLURL: c.CRLURL, CRLLifetime: time.Duration(c.CRLLifetime),
	}
}

// checkPolicy refuses what the first issuer is known never to sign. Those that
// stand in for it may have narrower limits.
func checkPolicy(s *event.Spec, shared *config.Shared) error {
	c := shared.Issuers[s.Issuer].Local
	if c == nil {
		return nil
	}
	if err := permits(c, s); err != nil {
		return &InvalidError{fmt.Sprintf("issuer %q: %v: `keyturn conf display` shows its settings", s.Issuer, err)}
	}
	return nil
}

// permits returns an error that wraps issuer.ErrRefused if a CA with these
// settings does not sign what a spec wants.
func permits(c *config.LocalCA, s *event.Spec) error {
	if g := c.Policy.Groups; len(g) > 0 && !slices.Contains(g, s.Group) {
		return fmt.Errorf("%w: the CA's policy does not allow certificates of group %q: it allows %s", issuer.ErrRefused, s.Group, strings.Join(g, ", "))
	}
	return localConfig(c).Permits(s.Names, x509.ExtKeyUsageServerAuth)
}

// A builtIn is the built-in CA for the managers of a bus, which remember for it
// what is revoked.
type builtIn struct {
	*localca.CA
	m      *Manager
	name   string
	config *config.LocalCA
}

var _ issuer.Revoker = (*builtIn)(nil)

// Revoke implements [issuer.Revoker]. Who may write to the bus may revoke; a key
// that is given has to be the certificate's.
func (b *builtIn) Revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason issuer.Reason) error {
	if err := b.Signed(leaf); err != nil {
		return err
	}
	if key != nil {
		public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(leaf.PublicKey) {
			return errors.New("the key is not the certificate's")
		}
	}
	return b.revoke(ctx, event.CARecord{Serial: leaf.SerialNumber.Bytes(), NotAfter: leaf.NotAfter, Names: short(issuer.NamesOf(leaf))}, reason)
}

// revoke notes that a certificate of this CA is revoked. One that is so already
// stays so from then on; that its key is compromised is noted in any case.
func (b *builtIn) revoke(ctx context.Context, r event.CARecord, reason issuer.Reason) error {
	if now := time.Now(); now.After(r.NotAfter) {
		return &InvalidError{fmt.Sprintf("the certificate with the serial number %x ended at %s: nobody believes it any more", r.Serial, stamp(r.NotAfter))}
	}
	return b.note(ctx, r, func(r *event.CARecord) {
		switch {
		case r.Revoked.IsZero():
			r.Revoked, r.Reason = time.Now(), uint64(reason)
		case reason == issuer.KeyCompromise:
			r.Reason = uint64(reason)
		}
	})
}
