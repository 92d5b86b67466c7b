// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/keyturn/keyturn/issuer"
)

// Revoke revokes a certificate (RFC 8555 section 7.6): as its account, or by its
// own key, which needs no account. One that is revoked already is no error.
func (ca *CA) Revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason issuer.Reason) error {
	s, err := ca.revoker(ctx, leaf, key)
	if err != nil {
		return err
	}
	if s.RevokeCert == "" {
		return fmt.Errorf("revoking at %s: %w", ca.config.Name, errNoAddress)
	}
	_, err = ca.ask(ctx, "revoking", func(ctx context.Context) error {
		return s.client.RevokeCertificate(ctx, s.account, leaf, key, int(reason))
	})
	switch kindOf(err) {
	case alreadyRevoked:
		return nil
	case unauthorized:
		return fmt.Errorf("%w: %w: the account that ordered a certificate can revoke it, and whoever has its key", issuer.ErrRefused, err)
	}
	return err
}

// revoker returns a session for whoever asks: with an account unless there is a
// key.
func (ca *CA) revoker(ctx context.Context, leaf *x509.Certificate, key crypto.Signer) (*session, error) {
	if key == nil {
		return ca.session(ctx)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("revoking at %s: %w: the key is not that of the certificate", ca.config.Name, issuer.ErrRefused)
	}
	if err := checkAccountKey(key); err != nil {
		return nil, fmt.Errorf("revoking at %s: %w: CAs take no signature by a key of this type: revoke it as the account", ca.config.Name, issuer.ErrRefused)
	}
	return ca.anonymous(ctx)
}
