// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// fetch obtains a certificate, from the Cache or from the issuer.
func (s *Source) fetch(ctx context.Context, f *flight) (h *held, issued bool, err error) {
	e := f.entry
	if f.renewal {
		if err := s.allow(ctx, e.name); err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrNotAllowed, err)
		}
	}
	old := e.live.Load()
	if kept := s.load(ctx, e); kept != nil {
		now := time.Now()
		// What another process renewed will do. What is due itself will do only where
		// there is nothing.
		if !old.valid(now) || now.Before(kept.due) && !kept.same(old) {
			return kept, false, nil
		}
	}
	h, err = s.issue(ctx, e, old)
	return h, err == nil, err
}

func (s *Source) issue(ctx context.Context, e *entry, old *held) (*held, error) {
	p := place{by: time.Now()}
	if old.valid(p.by) {
		p = place{renewal: true, by: old.until}
	}
	if err := s.gate.enter(ctx, e.name, p); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	key, err := s.newKey()
	if err != nil {
		return nil, fmt.Errorf("making its key: %w", err)
	}
	csr, err := issuer.NewRequest(key, s.plan.sans(e.name))
	if err != nil {
		return nil, err
	}
	chain, err := s.Issuer.Issue(ctx, csr, s.Lifetime)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("the issuer did not answer in time: %w", err)
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if err := check(chain, csr, now, e.pinned); err != nil {
		return nil, fmt.Errorf("the issuer's answer: %w", err)
	}
	h, err := newHeld(tls.Certificate{Certificate: chain, PrivateKey: key}, now, s.RenewBefore)
	if err != nil {
		return nil, err
	}
	s.plan.log.Info("a certificate was issued", "name", e.name, "until", h.until, "renewal", p.renewal)
	return h, nil
}

func (s *Source) newKey() (crypto.Signer, error) {
	if s.NewKey != nil {
		return s.NewKey()
	}
	return s.KeyType.Generate()
}

// check is issuer.Check. A service's own certificate may be for clients alone.
func check(chain [][]byte, csr *x509.CertificateRequest, now time.Time, own bool) error {
	_, err := issuer.Check(chain, csr, now)
	if own && errors.Is(err, issuer.ErrWrongUsage) {
		_, err = issuer.CheckFor(chain, csr, now, x509.ExtKeyUsageClientAuth)
	}
	return err
}

// forCache bounds what a Cache may take: one that does not answer leaves most of the time
// to the issuer.
func (s *Source) forCache(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.plan.timeout/4)
}

// load returns what the Cache keeps for an entry, if that can be served.
func (s *Source) load(ctx context.Context, e *entry) *held {
	if s.Cache == nil {
		return nil
	}
	ctx, cancel := s.forCache(ctx)
	defer cancel()
	data, err := s.Cache.Get(ctx, e.name)
	if errors.Is(err, ErrCacheMiss) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var h *held
	if err == nil {
		h, err = s.decode(data, e, time.Now())
	}
	if err != nil {
		if !errors.Is(err, issuer.ErrExpired) {
			s.complain("what the cache keeps is of no use; a certificate is issued in its place", e.name, err)
		}
		return nil
	}
	return h
}

// keep puts a certificate into the Cache. Without it, it is served all the same.
func (s *Source) keep(ctx context.Context, name string, h *held) {
	if s.Cache == nil {
		return
	}
	ctx, cancel := s.forCache(ctx)
	defer cancel()
	data, err := encode(&h.cert)
	if err == nil {
		err = s.Cache.Put(ctx, name, data)
	}
	if err != nil {
		s.plan.log.Warn("a certificate cannot be kept; it is served from memory", "name", name, "error", err)
	}
}

// encode returns the key and the chain as PEM.
func encode(cert *tls.Certificate) ([]byte, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encoding its key: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for _, der := range cert.Certificate {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return data, nil
}

// decode is the inverse of encode. It believes what it reads no more than what an issuer
// answers: a certificate for another name, key, time or use is an error. One that has not
// the names or the key that a new one would have is due at once.
func (s *Source) decode(data []byte, e *entry, now time.Time) (*held, error) {
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	// Blocks that do not read are left out by encoding/pem, and a chain may lack some.
	if whole, err := encode(&cert); err != nil || !bytes.Equal(whole, data) {
		return nil, errors.New("it is not whole")
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", cert.PrivateKey)
	}
	names := namesOf(cert.Leaf)
	if !slices.Contains(names, e.name) {
		return nil, fmt.Errorf("%w: it is not for %s", issuer.ErrWrongNames, e.name)
	}
	csr, err := issuer.NewRequest(key, names)
	if err != nil {
		return nil, err
	}
	if err := check(cert.Certificate, csr, now, e.pinned); err != nil {
		return nil, err
	}
	h, err := newHeld(cert, time.Time{}, s.RenewBefore)
	if err != nil {
		return nil, err
	}
	want := s.plan.sans(e.name)
	slices.Sort(want)
	slices.Sort(names)
	if !slices.Equal(want, slices.Compact(names)) || s.NewKey == nil && issuer.KeyTypeOf(key.Public()).String() != s.KeyType.String() {
		h.due = now
	}
	return h, nil
}

// namesOf returns the names of a leaf in their normal forms.
func namesOf(leaf *x509.Certificate) []string {
	var all []string
	for _, name := range leaf.DNSNames {
		all = append(all, strings.ToLower(name))
	}
	for _, ip := range leaf.IPAddresses {
		if ip, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, ip.Unmap().String())
		}
	}
	for _, u := range leaf.URIs {
		all = append(all, u.String())
	}
	return all
}
