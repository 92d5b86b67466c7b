// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/issuer"
)

var (
	_ issuer.Issuer  = (*Issuer)(nil)
	_ issuer.Revoker = (*Issuer)(nil)
)

// An Issuer has requests signed by a role of Vault's. Close it when it is not needed
// any more.
type Issuer struct {
	config  Config
	session *session
	base    *transport
}

// New returns an issuer. It reads the environment and asks nobody.
func New(c Config) (*Issuer, error) {
	c, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("configuring Vault: %w", err)
	}
	signed, entry, base, err := c.clients()
	if err != nil {
		return nil, fmt.Errorf("configuring Vault: %w", err)
	}
	c.Address = signed.Address()
	return &Issuer{config: c, session: newSession(c.Auth, signed, entry), base: base}, nil
}

// Close ends what keeps a token alive, and waits for it. The token itself is not
// revoked: it may be somebody else's, too. Calls that are under way go on.
func (i *Issuer) Close() error {
	i.session.close()
	i.base.CloseIdleConnections()
	return nil
}

// Issue is [issuer.Issuer]'s. The names of the request are sent beside it, so that a
// role may take them from either. Its common name has to be one of them; where it has
// none, its first DNS name of at most 64 characters is sent as one, since roles want
// one unless they are told otherwise (require_cn).
//
// The lifetime is cut to the role's max_ttl. The chain is Vault's ca_chain, or its
// issuing_ca where that is empty, without the root.
//
// An error that Vault has answered with has an *[issuer.Problem] in it, whose Type is
// one of this package's.
func (i *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	if err := issuer.CheckRequest(csr, lifetime); err != nil {
		return nil, err
	}
	p, err := parameters(csr, lifetime)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", issuer.ErrRefused, err)
	}
	answer, err := i.ask(ctx, i.config.Mount+"/sign/"+i.config.Role, p)
	if err != nil {
		return nil, err
	}
	if answer == nil || answer.Data == nil {
		// Other engines have taken the request for something to keep.
		empty := &issuer.Problem{Type: UnknownMount, Detail: "the answer is empty"}
		return nil, fmt.Errorf("%s: %w: %w: %s", i, issuer.ErrRefused, empty, advice[UnknownMount])
	}
	chain, err := chainOf(answer.Data)
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", i, err)
	}
	return chain, nil
}

// Revoke is [issuer.Revoker]'s. It needs update on MOUNT/revoke, and is authorised by
// the login alone: the key is not sent anywhere. Vault publishes no reasons, and does
// nothing about a certificate that has ended.
func (i *Issuer) Revoke(ctx context.Context, leaf *x509.Certificate, _ crypto.Signer, _ issuer.Reason) error {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	_, err := i.ask(ctx, i.config.Mount+"/revoke", map[string]any{"certificate": string(text)})
	return err
}

// ask writes to a path. A token that is refused is replaced once.
func (i *Issuer) ask(ctx context.Context, path string, p map[string]any) (*api.Secret, error) {
	g, err := i.session.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i, err)
	}
	answer, err := i.write(ctx, path, p)
	if status(err) == 403 {
		fresh, loginErr := i.session.again(ctx, g)
		switch {
		case loginErr == nil:
			g = fresh
			answer, err = i.write(ctx, path, p)
		case errors.Is(loginErr, errSame):
			g = fresh
		default:
			return nil, fmt.Errorf("%s: %w", i, loginErr)
		}
	}
	if status(err) == 403 {
		err = i.denied(err, path, g)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i, err)
	}
	return answer, nil
}

// denied says whose fault it is that a path is forbidden: that of the token, or of its
// policies. Not every version of Vault says so itself.
func (i *Issuer) denied(err error, path string, g grant) error {
	var p *issuer.Problem
	switch rule := fmt.Sprintf("path %q { capabilities = [\"update\"] }", path); {
	case errors.As(err, &p) && strings.Contains(p.Detail, "invalid token"):
		return fmt.Errorf("%w: %s", p, i.config.Auth.advice())
	case !g.known:
		return fmt.Errorf("%w: %s; or %s", err, rule, i.config.Auth.advice())
	default:
		return fmt.Errorf("%w: %w: %s", issuer.ErrRefused, err, rule)
	}
}

func (i *Issuer) write(ctx context.Context, path string, p map[string]any) (*api.Secret, error) {
	seenCtx, seen := withCall(ctx)
	answer, err := i.session.signed.Logical().WriteWithContext(seenCtx, path, p)
	if err != nil {
		return nil, explain(ctx, err, seen)
	}
	return answer, nil
}
