// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/schedule"
	"github.com/keyturn/keyturn/issuer"
	ca "github.com/keyturn/keyturn/issuer/acme"
)

// reload reads what is kept and serves it, if it is another certificate than before.
func (s *Server) reload(ctx context.Context) error {
	p, st, broken, err := s.keep.load(ctx)
	if err != nil {
		return err
	}
	if broken != nil {
		s.log.Error("a new certificate is obtained", "error", broken)
	}
	s.mu.Lock()
	s.state = st
	known := p == nil || s.pair != nil && s.pair.fingerprint() == p.fingerprint()
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := s.serve(p); err != nil {
		s.log.Error("the certificate that is kept cannot be served; a new one is obtained", "error", err)
	}
	return nil
}

// serve makes a certificate the one that handshakes get.
func (s *Server) serve(p *pair) error {
	if err := s.store.PutPEM(ID, p.pem, p.pem); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pair = p
	if s.state.covers(s.want) {
		s.first.set(true, nil)
	}
	return nil
}

// way returns the way to the CA.
func (s *Server) way(ctx context.Context) (*ca.CA, error) {
	if s.issuer != nil {
		return s.issuer, nil
	}
	account, err := s.keep.account(ctx)
	if err != nil {
		return nil, err
	}
	s.account = account
	s.issuer, err = ca.New(ca.Config{
		Name: s.keep.host(), Directory: s.config.Directory, Roots: s.config.Roots,
		TermsAgreed: s.config.TermsAgreed, Contact: s.config.Contact, EAB: s.config.EAB, Account: account,
		Profile: s.config.Profile, PreferredChain: s.config.PreferredChain, Challenge: s.config.Challenge,
		SkipCAA: s.config.SkipCAA, Resolvers: s.config.Resolvers, Solve: s.solve, Logger: s.log,
	})
	return s.issuer, err
}

// registered is way, with an account that the CA knows, with the contact of the
// configuration, and that is written down.
func (s *Server) registered(ctx context.Context) (*ca.CA, error) {
	way, err := s.way(ctx)
	if err != nil || s.known {
		return way, err
	}
	account, err := way.Register(ctx)
	if errors.Is(err, issuer.ErrRefused) && s.account.URL != "" {
		return nil, fmt.Errorf("%w; the account is kept as %s: without that a new one is made", err, s.keep.accountKey())
	}
	if err != nil {
		return nil, err
	}
	if account.URL != s.account.URL {
		if err := s.keep.saveAccount(ctx, account); err != nil {
			return nil, err
		}
	}
	s.account, s.known = account, true
	return way, nil
}

// attempt obtains a certificate and serves it. What it fails by is logged and kept.
func (s *Server) attempt(ctx context.Context) error {
	s.first.set(false, nil)
	err := s.obtain(ctx)
	if err == nil {
		s.log.Info("a new certificate is served", "until", s.Status().NotAfter)
		return nil
	}
	if ctx.Err() != nil {
		return err // the process ends: the order, if there is one, is kept
	}
	f := s.failed(ctx, err)
	s.log.Error("no certificate could be obtained", "error", err, "next", f.Next)
	s.first.set(false, f.error())
	return err
}

// error is what handshakes are told that cannot be made because of it.
func (f *failure) error() error {
	return fmt.Errorf("%s; it is tried again at %s", f.Text, f.Next.UTC().Format(time.RFC3339))
}

// failed keeps the failure.
func (s *Server) failed(ctx context.Context, err error) *failure {
	now := time.Now()
	s.mu.Lock()
	st := s.state
	f := &failure{For: s.want, Count: 1, At: now, Text: err.Error()}
	if old := st.Failure; old != nil && old.For.equal(s.want) {
		f.Count += old.Count
	}
	wait := schedule.Backoff(f.Count)
	if s.pair != nil && st.serves(s.want) {
		wait = s.rulesLocked().Retry(f.Count, now)
	}
	s.mu.Unlock()
	f.Next = now.Add(wait)
	if after, ok := issuer.RetryAfter(err); ok && after.After(f.Next) {
		f.Next = after
		if latest := now.Add(schedule.MaxRetry); after.After(latest) {
			f.Next = latest
		}
	}
	if o := new(issuer.OrderError); errors.As(err, &o) && o.Over {
		st.Order = nil
	}
	st.Failure = f
	if err := s.setState(ctx, st); err != nil {
		s.log.Error("a failure cannot be kept", "error", err)
	}
	return f
}

// setState makes st the state, also where it cannot be kept, which is the error.
func (s *Server) setState(ctx context.Context, st state) error {
	s.mu.Lock()
	s.state = st
	s.mu.Unlock()
	err := s.keep.saveState(ctx, st)
	s.unsaved = err != nil
	return err
}

// obtain goes on with the order that is kept, or makes one, to its end.
func (s *Server) obtain(ctx context.Context) error {
	if another, err := s.elsewhere(ctx); err != nil || another {
		return err
	}
	way, err := s.registered(ctx)
	if err != nil {
		return err
	}
	o, key, csr, err := s.prepare()
	if err != nil {
		return err
	}
	r := issuer.OrderRequest{
		CSR: csr, Challenge: s.config.Challenge, Profile: s.config.Profile, Replaces: s.replaces(), Resume: o.URL,
		Record: func(ctx context.Context, status issuer.OrderStatus) error {
			o.URL, o.Expires = status.URL, status.Expires
			st := s.currentState()
			st.Order = o
			err := s.setState(ctx, st)
			crash.Point(crash.ServerOrdered)
			return err
		},
	}
	chain, err := way.Order(ctx, r)
	if err != nil {
		return err
	}
	if _, err := issuer.Check(chain, csr, time.Now()); err != nil {
		return &issuer.OrderError{URL: o.URL, Over: true, Err: err}
	}
	return s.accept(ctx, key, chain)
}

// elsewhere reports whether another process that shares the Cache has obtained a
// certificate meanwhile, which is served then.
func (s *Server) elsewhere(ctx context.Context) (bool, error) {
	if s.lock != nil || s.unsaved { // nobody else writes, or nobody knows what this process wrote
		return false, nil
	}
	before := s.currentState().Leaf
	if err := s.reload(ctx); err != nil {
		return false, err
	}
	return s.currentState().Leaf != before && s.due().After(time.Now()), nil
}

// prepare returns the order to go on with, if it is for what is wanted now, or a new
// one with a key of its own.
func (s *Server) prepare() (*order, crypto.Signer, *x509.CertificateRequest, error) {
	if o := s.currentState().Order; o != nil && o.For.equal(s.want) {
		if key, csr, err := o.parse(); err == nil {
			kept := *o
			return &kept, key, csr, nil
		}
	}
	key, err := s.config.Key.Generate()
	if err != nil {
		return nil, nil, nil, err
	}
	csr, err := issuer.NewRequest(key, s.config.Names)
	if err != nil {
		return nil, nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	return &order{For: s.want, CSR: csr.Raw, Key: pkcs8}, key, csr, nil
}

func (o *order) parse() (crypto.Signer, *x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(o.CSR)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(o.Key)
	if err != nil {
		return nil, nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("a key that cannot sign")
	}
	return signer, csr, nil
}

// replaces is the certificate that the next one takes the place of at the CA.
func (s *Server) replaces() *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pair == nil || s.state.Made.Directory != s.config.Directory {
		return nil
	}
	return s.pair.leaf
}

// accept keeps the certificate and serves it.
func (s *Server) accept(ctx context.Context, key crypto.Signer, chain [][]byte) error {
	p, err := newPair(key, chain)
	if err != nil {
		return err
	}
	if err := s.keep.savePair(ctx, p); err != nil {
		return err
	}
	crash.Point(crash.ServerKept)
	st := state{Recalled: s.recalled()}
	st.made(p, s.want, time.Now())
	if err := s.setState(ctx, st); err != nil {
		s.log.Error("the state cannot be kept", "error", err)
	}
	return s.serve(p)
}

func (s *Server) currentState() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}
