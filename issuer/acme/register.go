// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto"
	"fmt"
	"slices"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
)

// Register makes the account at the CA, or finds it there by its key, brings its
// contact up to date and ends a roll-over that was begun. It returns the account as
// it is then: it is to be written down where it differs from that of the
// configuration. It can be called again at any time.
//
// An account that the CA has ended is ErrRefused.
func (ca *CA) Register(ctx context.Context) (*Account, error) {
	if err := ca.lock(ctx); err != nil {
		return nil, err
	}
	defer ca.unlock()
	d, err := ca.directory(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{ca: ca, directory: d}
	return s.register(ctx, ca.current())
}

// register is Register with the lock held.
func (s *session) register(ctx context.Context, a *Account) (*Account, error) {
	if a.Next != nil {
		settled, err := s.settle(ctx, a)
		if err != nil {
			return nil, err
		}
		a = settled
	}
	got, err := s.find(ctx, a.Key)
	// One that was there before is not made again: who kept a former key, and can
	// have it used once more, would have an account that is proven our names.
	if kindOf(err) == accountDoesNotExist && a.URL == "" {
		got, err = s.create(ctx, a.Key)
	}
	switch {
	case err != nil:
		return nil, accountError(err)
	case got.Location == "":
		return nil, fmt.Errorf("making the account at %s: the answer does not name the account", s.ca.config.Name)
	case !addressed(got.Location):
		return nil, fmt.Errorf("making the account at %s: the answer names the account by %s, which is no https URL of at most %d bytes", s.ca.config.Name, shown(got.Location), maxURL)
	case got.Status == acmez.StatusDeactivated || got.Status == acmez.StatusRevoked:
		return nil, fmt.Errorf("%w: the account %s is %s at %s: %s", issuer.ErrRefused, shown(got.Location), got.Status, s.ca.config.Name, anotherAccount)
	}
	if err := s.updateContact(ctx, a.Key, got); err != nil {
		return nil, err
	}
	registered := &Account{Key: a.Key, URL: got.Location}
	s.ca.setAccount(registered)
	return registered, nil
}

// find asks for the account of a key. It comes before create: an external account
// binding may be good for one account only.
func (s *session) find(ctx context.Context, key crypto.Signer) (got acmez.Account, err error) {
	_, err = s.ca.ask(ctx, "looking for the account", func(ctx context.Context) (err error) {
		got, err = s.client.GetAccount(ctx, acmez.Account{PrivateKey: key})
		return err
	})
	return got, err
}

func (s *session) create(ctx context.Context, key crypto.Signer) (got acmez.Account, err error) {
	if err := s.mayRegister(); err != nil {
		return got, err
	}
	wanted := acmez.Account{Contact: s.ca.config.Contact, TermsOfServiceAgreed: s.ca.config.TermsAgreed, PrivateKey: key}
	if e := s.ca.config.EAB; e != nil {
		if err := wanted.SetExternalAccountBinding(ctx, s.client, acmez.EAB{KeyID: e.KeyID, MACKey: e.HMACKey}); err != nil {
			return got, fmt.Errorf("binding the account to %v: %w", e, explain(err))
		}
	}
	_, err = s.ca.ask(ctx, "making the account", func(ctx context.Context) (err error) {
		got, err = s.client.NewAccount(ctx, wanted)
		crash.Point(crash.Registered)
		return err
	})
	return got, err
}

// anotherAccount is what to do where an account is of no use any more.
const anotherAccount = "the issuer needs another account: an issuer of a new name makes one"

// accountError is a failure that has to do with the account itself.
func accountError(err error) error {
	switch kindOf(err) {
	case unauthorized:
	case accountDoesNotExist:
		return fmt.Errorf("%w: %w: the CA does not know the account any more, and %s", issuer.ErrRefused, err, anotherAccount)
	default:
		return err
	}
	return fmt.Errorf("%w: %w: if the account was deactivated or its binding was withdrawn, %s", issuer.ErrRefused, err, anotherAccount)
}

// mayRegister looks at what the CA asks of a new account.
func (s *session) mayRegister() error {
	switch {
	case s.Meta.TermsOfService != "" && !s.ca.config.TermsAgreed:
		return fmt.Errorf("%w: %s has terms of service, %s: read them, and set terms_agreed: true in the issuer's settings if you agree",
			issuer.ErrRefused, s.ca.config.Name, shown(s.Meta.TermsOfService))
	case s.Meta.ExternalAccountRequired && s.ca.config.EAB == nil:
		return fmt.Errorf("%w: %s binds accounts to external ones: %s", issuer.ErrRefused, s.ca.config.Name, advice[externalAccountRequired])
	}
	return nil
}

// updateContact sets the contact of an account that has another. Without one in
// the configuration the account keeps its own.
func (s *session) updateContact(ctx context.Context, key crypto.Signer, got acmez.Account) error {
	want := s.ca.config.Contact
	if len(want) == 0 || slices.Equal(got.Contact, want) {
		return nil
	}
	_, err := s.ca.ask(ctx, "changing the account's contact", func(ctx context.Context) error {
		_, err := s.client.UpdateAccount(ctx, acmez.Account{Contact: want, Location: got.Location, PrivateKey: key})
		return err
	})
	return err
}

// Rollover changes the account's key. Before it is called, an account with next as
// Next is written down; after it, one with next as Key. Whoever dies between the
// two finds out by Register which of them the CA knows.
func (ca *CA) Rollover(ctx context.Context, next crypto.Signer) error {
	if err := checkAccountKey(next); err != nil {
		return fmt.Errorf("changing the account's key at %s: %w", ca.config.Name, err)
	}
	if _, err := ca.session(ctx); err != nil { // an account that the CA knows
		return err
	}
	if err := ca.lock(ctx); err != nil {
		return err
	}
	defer ca.unlock()
	d, err := ca.directory(ctx)
	if err != nil {
		return err
	}
	now := ca.current()
	_, err = (&session{ca: ca, directory: d}).changeKey(ctx, &Account{Key: now.Key, URL: now.URL, Next: next})
	return err
}

// settle ends a roll-over of which it is not known whether the CA made it: either
// the CA knows the account by the next key, or it is asked once more.
func (s *session) settle(ctx context.Context, a *Account) (*Account, error) {
	if a.URL == "" {
		return &Account{Key: a.Next}, nil // there is nothing to roll over yet
	}
	got, err := s.find(ctx, a.Next)
	if err == nil && got.Location == a.URL {
		return &Account{Key: a.Next, URL: a.URL}, nil
	}
	if err != nil && kindOf(err) != accountDoesNotExist {
		return nil, err
	}
	return s.changeKey(ctx, a)
}

// changeKey asks the CA to know the account by its next key (RFC 8555 section
// 7.3.5). Unless the CA has said no, whatever went wrong leaves a roll-over to
// settle.
func (s *session) changeKey(ctx context.Context, a *Account) (*Account, error) {
	if s.KeyChange == "" {
		return nil, fmt.Errorf("changing the account's key at %s: %w", s.ca.config.Name, errNoAddress)
	}
	s.ca.setAccount(a)
	_, err := s.ca.ask(ctx, "changing the account's key", func(ctx context.Context) error {
		_, err := s.client.AccountKeyRollover(ctx, acmez.Account{PrivateKey: a.Key, Location: a.URL}, a.Next)
		return err
	})
	if status := statusOf(err); 400 <= status && status < 500 {
		s.ca.setAccount(&Account{Key: a.Key, URL: a.URL})
	}
	if err != nil {
		return nil, err
	}
	crash.Point(crash.RolledOver)
	changed := &Account{Key: a.Next, URL: a.URL}
	s.ca.setAccount(changed)
	return changed, nil
}

// Deactivate ends the account for good (RFC 8555 section 7.3.6). Certificates stay
// valid.
func (ca *CA) Deactivate(ctx context.Context) error {
	s, err := ca.session(ctx)
	if err != nil {
		return err
	}
	_, err = ca.ask(ctx, "deactivating the account", func(ctx context.Context) error {
		_, err := s.client.UpdateAccount(ctx, acmez.Account{Status: acmez.StatusDeactivated, Location: s.account.Location, PrivateKey: s.account.PrivateKey})
		return err
	})
	return err
}

// forget makes the next session ask for the account again: the CA does not know it
// by its URL.
func (ca *CA) forget(url string) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.account.URL == url {
		ca.account = &Account{Key: ca.account.Key, Next: ca.account.Next}
	}
}
