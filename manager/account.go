// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/seal"
)

// acmeIssuer is the type "acme": it keeps its account at the CA. The account's key
// is on the bus before the CA is told of it, so that no account is ever without a
// key, and all managers that begin at once end with one account.
type acmeIssuer struct{}

// A keptAccount is what is sealed in an issuer's state.
type keptAccount struct {
	// Directory is the CA's, which no other CA's can take the place of.
	Directory string `json:"directory"`
	// Contact is what the CA was told last.
	Contact []string `json:"contact,omitempty"`
	// Brought is the SHA-256 of the public key that the account was brought along
	// with (SubjectPublicKeyInfo); empty if it was made here.
	Brought []byte `json:"brought,omitempty"`
	// Account is in acme's own form.
	Account []byte `json:"account"`
}

// put seals the account to the managers.
func (k *keptAccount) put(m *Manager, s *event.IssuerState, a *acme.Account) (err error) {
	if k.Account, err = a.Marshal(); err != nil {
		return err
	}
	defer clear(k.Account)
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	defer clear(text)
	s.Sealed, err = m.identity.Sealing[0].Public().Seal(s.Associated(m.tenant), text)
	return err
}

// accountOf opens what an issuer keeps.
func (m *Manager) accountOf(s *event.IssuerState) (*keptAccount, *acme.Account, error) {
	text, err := seal.Open(m.identity.Sealing, s.Associated(m.tenant), s.Sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the account: %w", err)
	}
	defer clear(text)
	k := new(keptAccount)
	if err := json.Unmarshal(text, k); err != nil {
		return nil, nil, errors.New("opening the account: it is not in a form that this version knows")
	}
	defer clear(k.Account)
	a, err := acme.ParseAccount(k.Account)
	return k, a, err
}

// broughtKey returns the account key of the settings, and what it is known by; nil
// if they have none.
func broughtKey(c *config.ACME) (crypto.Signer, []byte, error) {
	if c.AccountKey == "" {
		return nil, nil, nil
	}
	key, err := config.ParseAccountKey(c.AccountKey)
	if err != nil {
		return nil, nil, fmt.Errorf("account_key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("account_key: %w", err)
	}
	id := sha256.Sum256(der)
	return key, id[:], nil
}

func (acmeIssuer) found(m *Manager, s *event.IssuerState, shared *config.Shared) error {
	c := shared.Issuers[s.Name].ACME
	key, id, err := broughtKey(c)
	if err != nil {
		return err
	}
	a := &acme.Account{Key: key}
	if key == nil {
		if a, err = acme.NewAccount(); err != nil {
			return err
		}
	}
	k := &keptAccount{Directory: directoryOf(c), Brought: id}
	return k.put(m, s, a)
}

// directoryOf returns the URL of the directory, which may be a preset's.
func directoryOf(c *config.ACME) string {
	if p, ok := acme.Presets[c.Directory]; ok {
		return p.Directory
	}
	return c.Directory
}

// open refuses settings that are not those of the account.
func (acmeIssuer) open(m *Manager, s *event.IssuerState, shared *config.Shared) (issuer.Issuer, error) {
	c := shared.Issuers[s.Name].ACME
	k, a, err := m.accountOf(s)
	if err != nil {
		return nil, err
	}
	_, id, err := broughtKey(c)
	switch {
	case err != nil:
		return nil, err
	case k.Directory != directoryOf(c):
		return nil, fmt.Errorf("its account is at %s and not at %s: another CA needs a new name", k.Directory, directoryOf(c))
	case id != nil && !bytes.Equal(id, k.Brought):
		return nil, errors.New("it has an account already, which account_key is not the key of: another account needs a new name")
	}
	settings, err := m.acmeConfig(s.Name, c, shared)
	if err != nil {
		return nil, err
	}
	settings.Account = a
	return acme.New(settings)
}

func (m *Manager) acmeConfig(name string, c *config.ACME, shared *config.Shared) (acme.Config, error) {
	settings := acme.Config{
		Name: name, Directory: directoryOf(c), TermsAgreed: c.TermsAgreed, Contact: c.Contact,
		Profile: c.Profile, PreferredChain: c.PreferredChain, Challenge: c.Challenge,
		Patience: issueTimeout - time.Minute, // so that the error is the issuer's, who knows what did not come
		Solve:    m.solve, SkipCAA: c.SkipCAA, Resolvers: shared.Resolvers, Logger: m.logger,
	}
	if c.EAB != nil {
		settings.EAB = &acme.EAB{KeyID: c.EAB.KeyID, HMACKey: c.EAB.HMACKey}
	}
	if c.Roots != "" {
		settings.Roots = x509.NewCertPool()
		if !settings.Roots.AppendCertsFromPEM([]byte(c.Roots)) {
			return settings, errors.New("roots: there is no PEM certificate in it")
		}
	}
	return settings, nil
}

// enrol makes the account known to the CA, tells it of another contact, and ends a
// roll-over that was begun.
func (acmeIssuer) enrol(ctx context.Context, m *Manager, i issuer.Issuer, s *event.IssuerState, shared *config.Shared) (*event.IssuerState, error) {
	c := shared.Issuers[s.Name].ACME
	k, a, err := m.accountOf(s)
	if err != nil || a.URL != "" && a.Next == nil && slices.Equal(k.Contact, c.Contact) {
		return nil, err
	}
	ca, ok := i.(*acme.CA)
	if !ok {
		return nil, fmt.Errorf("an issuer of type acme is a %T", i)
	}
	known, err := ca.Register(ctx)
	if err != nil {
		return nil, err
	}
	m.logger.Info("the account at the CA is ready", "issuer", s.Name, "account", known.URL, "contact", c.Contact, "new_key", a.Next != nil)
	k.Contact = c.Contact
	next := *s
	return &next, k.put(m, &next, known)
}

func (acmeIssuer) tell(m *Manager, s *event.IssuerState, c config.Issuer, i *IssuerInfo) error {
	i.Directory, i.Contact, i.TermsAgreed = directoryOf(c.ACME), c.ACME.Contact, c.ACME.TermsAgreed
	if s == nil || s.Kind != c.Type {
		return nil
	}
	_, a, err := m.accountOf(s)
	if err == nil {
		i.Account = a.URL
	}
	return err
}

// RolloverAccount changes the key of an issuer's account at its CA (RFC 8555
// section 7.3.5), making the account if there is none yet. Both keys are on the bus
// until the CA has answered: whoever is next to ask the CA, here or in another
// manager, finds out which of them it knows and ends what was cut short. So does
// calling it again.
//
// The error may be an *InvalidError, or what the CA said.
func (m *Manager) RolloverAccount(ctx context.Context, name string) error {
	shared, _, err := m.shared(ctx)
	if err != nil {
		return err
	}
	if c, ok := shared.Issuers[name]; !ok {
		return noIssuer(name)
	} else if c.ACME == nil {
		return &InvalidError{fmt.Sprintf("issuer %q is of type %s, which has no account", name, c.Type)}
	}
	if _, err := m.issuer(ctx, name); err != nil {
		return err
	}
	if err := m.beginRollover(ctx, name); err != nil {
		return fmt.Errorf("changing the account key of issuer %q: %w", name, err)
	}
	if _, err := m.issuer(ctx, name); err != nil {
		return fmt.Errorf("changing the account key, which is gone on with when the issuer is used next: %w", err)
	}
	m.logger.Warn("the account at the CA has another key", "issuer", name)
	return nil
}

// beginRollover writes the next key down, unless one is there already.
func (m *Manager) beginRollover(ctx context.Context, name string) error {
	fresh, err := acme.NewAccount()
	if err != nil {
		return err
	}
	for {
		s, at, err := get[*event.IssuerState](ctx, m, event.IssuerKey(name))
		if err != nil {
			return err
		}
		k, a, err := m.accountOf(s)
		if err != nil || a.Next != nil {
			return err
		}
		a.Next = fresh.Key
		if err := k.put(m, s, a); err != nil {
			return err
		}
		if _, err = m.append(ctx, at, s); !conflict(err) {
			crash.Point(crash.RolloverBegun)
			return err
		}
	}
}
