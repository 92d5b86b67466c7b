// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// What the zero values of a Source stand for.
const (
	// DefaultTimeout bounds an issuance. A client waits about as long.
	DefaultTimeout = time.Minute
	// DefaultMaxAtOnce and DefaultMaxPerMinute are what a small CA of one process
	// signs without noticing.
	DefaultMaxAtOnce    = 16
	DefaultMaxPerMinute = 600
	// DefaultMaxNames is what fits into some 100 MB.
	DefaultMaxNames = 10_000
)

// A Source has certificates issued as they are asked for, and keeps them. Its fields
// are not changed after its first use, and it is not copied. All methods may be called by
// any number of goroutines at once.
//
// What is wrong with the fields is the error of every method but Close.
type Source struct {
	// Issuer signs. It is required.
	Issuer issuer.Issuer

	// Allow says for which names certificates may be issued. Nil allows none but
	// CommonName and Names, which always are: every certificate has them.
	Allow Allow

	// CommonName is this service's own name: a DNS name, an IP address or a URI. Its
	// certificate is the one that clients show, and the answer to a client that asks
	// for it, or asks for no name where Allow does not allow the IP address that it
	// connected to. It is a subject alternative name of every certificate. Empty means
	// that there is none: such clients are refused, and so is GetClientCertificate.
	CommonName string

	// Names are further names of every certificate: DNS names, wildcards, IP
	// addresses, and URIs, as SPIFFE IDs are. All together are 99 at most.
	Names []string

	// Cache keeps certificates beyond the life of the process. Nil keeps them in
	// memory alone.
	Cache Cache

	// RenewBefore is how long before its end a certificate is renewed. 0 means a third
	// of its lifetime. It is cut to the lifetime, of which a fiftieth at least is used.
	RenewBefore time.Duration

	// Lifetime is how long certificates are asked to be valid; what the issuer grants
	// counts. 0 means the issuer's default.
	Lifetime time.Duration

	// KeyType is what keys are made of. Empty means ECDSA P-256.
	KeyType issuer.KeyType

	// NewKey makes the key of each certificate, in place of KeyType. Keys that
	// cannot be encoded, such as those of a security module, are not put into the Cache.
	NewKey func() (crypto.Signer, error)

	// Timeout bounds each issuance, from the handshake that asks for it to the
	// certificate, waiting for others included. Allow has as much, and each call of the
	// Cache a quarter of it. 0 means DefaultTimeout.
	Timeout time.Duration

	// MaxAtOnce and MaxPerMinute are how many issuances go on at the same time, and
	// how many begin within any minute, renewals included. Others wait. 0 means
	// DefaultMaxAtOnce and DefaultMaxPerMinute.
	MaxAtOnce, MaxPerMinute int

	// MaxNames is for how many names certificates, or failures, are in memory, some
	// 10 KiB each. Beyond it, what was not asked for the longest is dropped, and if
	// there is no Cache, issued anew when it is asked for. 0 means DefaultMaxNames.
	MaxNames int

	// Logger is told of each certificate, each renewal that fails, and, once in ten
	// minutes for a name, why it was refused or could not be issued. Nil logs
	// nothing.
	Logger *slog.Logger

	setup sync.Once
	plan  *plan // set by setup
	wrong error // set by setup

	table table
	gate  gate
	muted muted
}

// ErrClosed means that the Source was closed: it issues nothing any more.
var ErrClosed = errors.New("the Source is closed")

// GetCertificate returns the certificate for the name that the client asks for. It is
// made for [tls.Config.GetCertificate].
//
// The name is taken without regard to letter case and trailing dot, and refused
// if it is no host name. A client that sends no name gets the certificate of the IP
// address that it connected to, if Allow allows that, else that of CommonName. An address
// sent as a name, which RFC 6066 section 3 does not permit, counts if it is that one.
//
// Clients learn nothing of an error but that there is one: crypto/tls sends the alert
// internal_error.
func (s *Source) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now()
	var e *entry
	if hello.ServerName != "" {
		e = s.table.find(hello.ServerName)
	} else if ip := localAddr(hello.Conn); ip.IsValid() {
		e = s.table.findAddr(ip)
	}
	if h := s.atHand(e, now); h != nil && h.server {
		return &h.cert, nil
	}
	cert, err := s.getCertificate(hello)
	if err != nil {
		return nil, fmt.Errorf("ondemand: choosing a certificate: %w", err)
	}
	return cert, nil
}

// getCertificate is GetCertificate where nothing is at hand under what was sent.
func (s *Source) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p, err := s.prepare()
	if err != nil {
		return nil, err
	}
	ctx, ip := contextOf(hello), localAddr(hello.Conn)
	if hello.ServerName == "" {
		return s.unnamed(ctx, p, ip)
	}
	name, err := serverName(hello.ServerName)
	if err == nil && !p.own(name) && isAddr(name) && name != ip.String() {
		err = errors.New("it is an address, but not the one that the client connected to")
	}
	if err != nil {
		return nil, s.refused(hello.ServerName, err)
	}
	return s.forServer(ctx, name, false)
}

// unnamed chooses for a client that sent no name.
func (s *Source) unnamed(ctx context.Context, p *plan, ip netip.Addr) (*tls.Certificate, error) {
	var err error
	if ip.IsValid() {
		if err = s.allow(ctx, ip.String()); err == nil {
			return s.forServer(ctx, ip.String(), true)
		}
	}
	if p.name != "" {
		return s.forServer(ctx, p.name, true)
	}
	if !ip.IsValid() {
		err = errors.New("the client sent no name, the address that it connected to is not known, and there is no CommonName")
	}
	return nil, s.refused(ip.String(), err)
}

func (s *Source) forServer(ctx context.Context, name string, allowed bool) (*tls.Certificate, error) {
	h, err := s.obtain(ctx, name, allowed)
	if err != nil {
		return nil, err
	}
	if !h.server {
		return nil, fmt.Errorf("the issuer's certificate for %s: %w: it lacks the extended key usage serverAuth", name, issuer.ErrWrongUsage)
	}
	return &h.cert, nil
}

// GetClientCertificate returns the certificate of CommonName, whatever authorities the
// server names. It is made for [tls.Config.GetClientCertificate].
func (s *Source) GetClientCertificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h, err := s.own(contextOf(info))
	if err != nil {
		return nil, fmt.Errorf("ondemand: choosing the client's certificate: %w", err)
	}
	return &h.cert, nil
}

func (s *Source) own(ctx context.Context) (*held, error) {
	p, err := s.prepare()
	if err != nil {
		return nil, err
	}
	if p.name == "" {
		return nil, errors.New("there is no CommonName: set it to this service's own name")
	}
	h, err := s.obtain(ctx, p.name, true)
	if err != nil {
		return nil, err
	}
	if !h.client {
		return nil, fmt.Errorf("the issuer's certificate for %s: %w: it lacks the extended key usage clientAuth; have the issuer grant it", p.name, issuer.ErrWrongUsage)
	}
	return h, nil
}

// Certificate returns the certificate for a name, as GetCertificate does for a server
// name, or that of CommonName for "". It is for a service that wants its certificate, or
// to know that there can be none, before the first handshake.
func (s *Source) Certificate(ctx context.Context, name string) (*tls.Certificate, error) {
	p, err := s.prepare()
	if err != nil {
		return nil, fmt.Errorf("ondemand: %w", err)
	}
	switch {
	case name == "" && p.name == "":
		err = errors.New("there is no CommonName: set it, or give a name")
	case name == "":
		name = p.name
	case !p.own(name):
		sent := name
		if name, err = serverName(sent); err != nil {
			err = s.refused(sent, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ondemand: %w", err)
	}
	h, err := s.obtain(ctx, name, false)
	if err != nil {
		return nil, fmt.Errorf("ondemand: %w", err)
	}
	return &h.cert, nil
}

// Remove drops the certificate for a name from memory and from the Cache, as is due when
// its key is no secret any more: the next handshake has one issued. It waits for an
// issuance that is under way. It revokes nothing. That there is none is no error.
func (s *Source) Remove(ctx context.Context, name string) error {
	p, err := s.prepare()
	if err == nil && !p.own(name) {
		name, err = serverName(name)
	}
	if err == nil {
		err = s.remove(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("ondemand: removing the certificate for %.253q: %w", name, err)
	}
	return nil
}

// Close ends the renewals and whatever is being issued, and returns when all of it has
// ended. What is in memory is served to its end, but nothing is issued or renewed any
// more: where there is no valid certificate, the error wraps ErrClosed. It returns nil,
// and may be called again.
func (s *Source) Close() error {
	s.table.close()
	s.gate.close()
	return nil
}
