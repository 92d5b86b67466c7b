// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"time"
)

// An Issuer is a certificate authority, or the way to one.
//
// All methods may be called by any number of goroutines at once.
type Issuer interface {
	// Issue has the request signed and returns the certificate's chain in DER:
	// the leaf first, each certificate signed by the one after it, the root
	// usually left out. The chain belongs to the caller.
	//
	// The request carries the public key, the names and a proof of possession.
	// The private key never reaches an Issuer. csr comes from
	// [x509.ParseCertificateRequest] (or [NewRequest]); it is neither changed
	// nor kept.
	//
	// lifetime is how long from now the certificate is wanted to be valid; 0 is
	// the issuer's default, below 0 is refused. It is a wish: a CA may cap or
	// ignore it, and the leaf's NotAfter is what counts. A little time before
	// now is usually valid too, for clients whose clocks are behind.
	//
	// The caller retries, by its own schedule. Within one call an Issuer repeats
	// only what its protocol asks for, such as polling an order or taking a
	// fresh nonce. An error that is [ErrRefused] means that asking again is of
	// no use until the request or the issuer's configuration has changed; after
	// any other error a later call may succeed. After an error, too, the CA may
	// have signed: that certificate is lost, not half delivered.
	//
	// ctx bounds everything, waiting on the CA included. When it ends, Issue
	// returns soon, and the error wraps ctx's.
	//
	// The answer is not yet checked: the caller passes it to [Check] before it
	// relies on it.
	Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) (chain [][]byte, err error)
}

// ErrRefused means that the CA will not sign this request however often it is
// asked. It is wrapped together with the reason.
var ErrRefused = errors.New("the issuer refuses this request")
