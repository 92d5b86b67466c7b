// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"time"
)

// An Orderer is an Issuer whose orders outlive a call, such as an ACME CA: what
// one call began, another can finish, in another process.
type Orderer interface {
	Issuer

	// Order is Issue, and tells of the order before it can become a certificate,
	// so that after a crash the same one is finished instead of a second one.
	Order(ctx context.Context, r OrderRequest) (chain [][]byte, err error)
}

// An OrderRequest says what to order. CSR is required.
type OrderRequest struct {
	// CSR and Lifetime are those of Issue.
	CSR      *x509.CertificateRequest
	Lifetime time.Duration
	// Challenge is how control of the names is to be proven; "" is the issuer's
	// default.
	Challenge string
	// Profile is the kind of certificate, by the CA's name for it; "" is the
	// issuer's default.
	Profile string
	// Group is whose replicas serve the names, for challenges that they answer.
	Group string
	// Replaces is the certificate, from the same CA, that the new one takes the
	// place of; nil if there is none. A CA may exempt such orders from its limits.
	Replaces *x509.Certificate
	// Resume is the address of an order that an earlier call told of, for the same
	// CSR; "" begins a new one. One that has ended otherwise than by a certificate, or
	// that the CA does not know any more, is replaced by a new one.
	Resume string
	// Record, if not nil, is told of the order: once before it is finalised, unless
	// it is the resumed one. If it fails, the order is not gone on with.
	Record func(ctx context.Context, o OrderStatus) error
}

// An OrderStatus is how an order stands.
type OrderStatus struct {
	// URL is its address, and Status the CA's word for its state.
	URL, Status string
	Expires     time.Time // zero if the CA did not say
}

// A Keeper is an Orderer from which a certificate can be had once more.
type Keeper interface {
	// Certificate returns the chain that an order became, as Issue does.
	Certificate(ctx context.Context, order string) (chain [][]byte, err error)
}

// A Revoker is an Issuer that can take back what it signed.
type Revoker interface {
	// Revoke revokes the certificate. With key, its private key, that is the proof
	// of the right to do so, else the account is. What is revoked already is no
	// error.
	Revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason Reason) error
}

// A RenewalInformer is an Issuer that says when to renew (RFC 9773).
type RenewalInformer interface {
	// RenewalInfo asks for a certificate that this issuer signed. The error may be
	// ErrNoRenewalInfo.
	RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error)
}

// ErrNoRenewalInfo means that the CA never says when to renew.
var ErrNoRenewalInfo = errors.New("the issuer does not say when to renew")

// A RenewalInfo is what a CA says of when to renew one certificate.
type RenewalInfo struct {
	// Start and End are the window in which it wants to be asked. End is after
	// Start; both may be over: then at once.
	Start, End time.Time
	// Explanation is the address of a page for people; "" if there is none.
	Explanation string
	// Poll is after how long to ask again, at least a minute and at most a day;
	// six hours if the CA did not say (RFC 9773 section 4.3).
	Poll time.Duration
}

// A Hint is an error that says when asking again makes sense: the CA said so.
type Hint struct {
	After time.Time
	Err   error
}

func (h *Hint) Error() string { return h.Err.Error() }
func (h *Hint) Unwrap() error { return h.Err }

// RetryAfter returns until when the CA wants not to be asked again, and whether
// it said so.
func RetryAfter(err error) (time.Time, bool) {
	var h *Hint
	if errors.As(err, &h) {
		return h.After, true
	}
	return time.Time{}, false
}

// An OrderError is why an order came to nothing.
type OrderError struct {
	URL string
	// Status is the CA's last word for its state; "" if it has said nothing since an
	// earlier call. Only a pending one cannot have become a certificate.
	Status string
	// Over says that it never becomes a certificate: another one is needed.
	Over bool
	Err  error
}

func (e *OrderError) Error() string { return "order " + e.URL + ": " + e.Err.Error() }
func (e *OrderError) Unwrap() error { return e.Err }
