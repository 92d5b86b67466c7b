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
)

// A draft is a certificate to be: its key and its request, and the order that
// goes with them.
type draft struct {
	key   crypto.Signer
	csr   *x509.CertificateRequest
	order string // its address, whether or not it is written down; "" while there is none
}

// newDraft makes a key and a request as a spec wants them.
func newDraft(spec *event.Spec) (*draft, error) {
	keyType, err := issuer.ParseKeyType(spec.KeyType)
	if err != nil {
		return nil, err
	}
	key, err := keyType.Generate()
	if err != nil {
		return nil, err
	}
	csr, err := issuer.NewRequest(key, spec.Names)
	return &draft{key: key, csr: csr}, err
}

// resumed returns the draft of the order that is under way for the next
// generation of c; nil if there is none, or none that will do.
func (m *Manager) resumed(c *Managed, asked string) *draft {
	if c.Order == nil {
		return nil
	}
	d, err := m.openOrder(c, asked)
	if err != nil {
		m.logger.Warn("an order is not gone on with", "managed_id", c.ID, "generation", c.Order.Generation, "issuer", c.Order.Issuer, "order", c.Order.URL, "error", err)
		return nil
	}
	return d
}

// openOrder returns the draft of c's order. The error says why it is not one for
// what c wants next.
func (m *Manager) openOrder(c *Managed, asked string) (*draft, error) {
	o := c.Order
	switch {
	case o.Generation != c.Generation+1:
		return nil, fmt.Errorf("it is for another generation than %d", c.Generation+1)
	case o.Issuer != asked:
		return nil, fmt.Errorf("issuer %q is asked now", asked)
	}
	csr, err := x509.ParseCertificateRequest(o.Request)
	if err != nil {
		return nil, fmt.Errorf("its request does not parse: %w", err)
	}
	if is := issuer.KeyTypeOf(csr.PublicKey).String(); is != c.Spec.KeyType {
		return nil, fmt.Errorf("its key is of type %s, and %s is wanted", is, c.Spec.KeyType)
	}
	if !slices.Equal(sortedNames(namesOf(csr)), sortedNames(c.Spec.Names)) {
		return nil, errors.New("it is for other names")
	}
	pkcs8, err := o.Open(m.tenant, c.ID, m.identity.Sealing)
	if err != nil {
		return nil, fmt.Errorf("its key cannot be opened: %w", err)
	}
	defer clear(pkcs8)
	key, err := parseKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	return &draft{key, csr, o.URL}, nil
}

// namesOf returns what a request's certificate is for, as a Spec has it.
func namesOf(csr *x509.CertificateRequest) []string {
	list := slices.Clone(csr.DNSNames)
	for _, ip := range csr.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}

func sortedNames(list []string) []string { return slices.Sorted(slices.Values(list)) }

// parseKey reads a private key. The error never quotes it.
func parseKey(pkcs8 []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("it does not parse")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	return signer, nil
}

// order has a draft signed. If the issuer's orders outlive a call, the state tells
// of the order before it can become a certificate, and a draft that has one goes
// on with that.
func (m *Manager) order(ctx context.Context, k *keeper, with means, d *draft) ([][]byte, error) {
	c := k.now()
	if b, ok := with.issuer.(*builtIn); ok {
		if err := permits(b.config, &c.Spec); err != nil {
			return nil, err
		}
	}
	o, ok := with.issuer.(issuer.Orderer)
	if !ok {
		return with.issuer.Issue(ctx, d.csr, c.Spec.Lifetime)
	}
	if d.order != "" {
		m.progress(c.ID, "the order of an earlier attempt is gone on with: "+d.order)
	}
	r := issuer.OrderRequest{
		CSR: d.csr, Lifetime: c.Spec.Lifetime,
		Challenge: c.Spec.Challenge, Profile: c.Spec.Profile, Group: c.Spec.Group,
		Replaces: c.replaces(with.asked), Resume: d.order,
		Record: func(ctx context.Context, s issuer.OrderStatus) error { return m.record(ctx, k, with.asked, d, s) },
	}
	return o.Order(ctx, r)
}

// record writes an order down, with the renewal of the claim.
func (m *Manager) record(ctx context.Context, k *keeper, asked string, d *draft, s issuer.OrderStatus) error {
	c := k.now()
	d.order = s.URL
	o := &event.Order{
		Generation: c.Claim.Generation, Issuer: asked, URL: s.URL, Status: s.Status,
		At: time.Now(), Expires: s.Expires, Request: d.csr.Raw,
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(d.key)
	if err != nil {
		return fmt.Errorf("encoding the private key: %w", err)
	}
	defer clear(pkcs8)
	if err := o.Seal(m.tenant, c.ID, m.identity.Sealing[0].Public(), pkcs8); err != nil {
		return err
	}
	if err := k.write(ctx, func(next *event.State) { next.Order = o }); err != nil {
		return fmt.Errorf("writing the order %s down: %w", s.URL, err)
	}
	m.progress(c.ID, "the order is written down: "+s.URL)
	crash.Point(crash.Ordered)
	return nil
}

// replaces returns the newest generation's leaf if the issuer signed it, and so
// can be told that it is replaced (RFC 9773 section 5).
func (c *Managed) replaces(asked string) *x509.Certificate {
	r, ok := c.newest()
	if !ok || r.Issuer != asked {
		return nil
	}
	leaf, err := c.Leaf()
	if err != nil {
		return nil
	}
	return leaf
}

// dropped reports whether an order never becomes a certificate that can be used,
// by what it failed of.
func dropped(cause error) bool {
	var over *issuer.OrderError
	var useless *answerError
	return errors.As(cause, &over) && over.Over || errors.As(cause, &useless)
}

// stands returns an order with the CA's last word of it, by what an attempt at it
// failed of.
func stands(o *event.Order, cause error) *event.Order {
	var failed *issuer.OrderError
	if o == nil || !errors.As(cause, &failed) || failed.URL != o.URL || failed.Status == "" {
		return o
	}
	now := *o
	now.Status = failed.Status
	return &now
}

// expired reports whether the CA need not know the order any more (RFC 8555 section
// 7.1.3), and not every CA says so: an attempt at it that fails is the last.
func (c *Managed) expired() bool {
	return c.Order != nil && !c.Order.Expires.IsZero() && time.Now().After(c.Order.Expires)
}
