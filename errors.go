// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"errors"
	"fmt"
	"net/netip"
)

// Why a certificate is refused. The errors of [Store.Put] and its siblings, and
// of a [Lazy] that turns out bad, wrap exactly one of these, or what the parser
// or Open said. All of them leave what was served served.
var (
	// ErrEmpty means that there is no certificate, no private key or no id.
	ErrEmpty = errors.New("certificate, private key or id is missing")

	// ErrTooLarge means that the input is over a bound: 256 KiB, 10
	// certificates in a chain, 1000 names.
	ErrTooLarge = errors.New("certificate is too large")

	// ErrKeyMismatch means that the private key belongs to none of the
	// certificates given.
	ErrKeyMismatch = errors.New("private key does not belong to the certificate")

	// ErrUnsupportedKey means that crypto/tls cannot use the key: neither RSA of
	// at most 8192 bits, nor ECDSA on P-256, P-384 or P-521, nor Ed25519, or not
	// a [crypto.Signer].
	ErrUnsupportedKey = errors.New("private key is of an unsupported type")

	// ErrExpired means that the leaf or an intermediate has expired.
	ErrExpired = errors.New("certificate has expired")

	// ErrNotYetValid means that the leaf or an intermediate is not valid yet, or
	// that the clock of this machine is slow.
	ErrNotYetValid = errors.New("certificate is not yet valid")

	// ErrWrongUsage means that the leaf's extended key usage allows neither TLS
	// servers nor TLS clients (RFC 5280, section 4.2.1.12), or, for a [Lazy],
	// not what it was loaded for.
	ErrWrongUsage = errors.New("certificate is not for this use")

	// ErrBrokenChain means that the certificates after the leaf do not form one
	// path upwards from it, in any order.
	ErrBrokenChain = errors.New("certificate chain is broken")

	// ErrNoNames means that the leaf is for servers and names nothing that a peer could
	// ask for. The common name does not count (RFC 9525, section 6.3).
	ErrNoNames = errors.New("certificate has no names")

	// ErrBadName means that a name of a [Lazy] is neither a DNS name nor an IP
	// address, or that one of [Trust.SetPeerNames] is neither and no URI.
	ErrBadName = errors.New("invalid name")

	// ErrUncovered means that a [Lazy] was opened and does not cover a name that
	// it was loaded for.
	ErrUncovered = errors.New("certificate does not cover the name")
)

// Why a peer is not believed, or no peer can be. See [Trust].
var (
	// ErrNoClientCAs means that a server is to verify the certificates of its clients
	// and has no authorities for that.
	ErrNoClientCAs = errors.New("there are no client CAs")

	// ErrClientAuth means that a server's mode of client authentication does not exist.
	ErrClientAuth = errors.New("unknown client-auth mode")

	// ErrNoServerName means that a client does not know the name that its server
	// must have.
	ErrNoServerName = errors.New("the server's name is not known")

	// ErrPeerName means that the certificate of a peer has none of the names that it
	// must have, see [Trust.SetPeerNames].
	ErrPeerName = errors.New("certificate is not of an accepted peer")
)

// UnknownNameError is the error of [Store.GetCertificate] for a handshake that
// nothing in the Store fits. The client sees an internal_error alert: crypto/tls
// has no other for an error of GetCertificate.
type UnknownNameError struct {
	// Name is the server name as the client sent it, cut after 255 bytes. It can
	// hold any bytes: quote it before it is shown. Empty if the client sent none.
	Name string

	// Local is the address the client connected to, if Name is empty and the
	// address is known.
	Local netip.Addr

	// Empty is true if the Store has no certificate at all.
	Empty bool
}

// Error returns the message, with the name quoted.
func (e *UnknownNameError) Error() string {
	const remedy = "put one that covers it or set a default"
	switch {
	case e.Empty:
		return "keyturn: choosing a certificate: there is none at all; put one"
	case e.Name != "":
		return fmt.Sprintf("keyturn: choosing a certificate: none covers server name %q; %s", e.Name, remedy)
	case e.Local.IsValid():
		return fmt.Sprintf("keyturn: choosing a certificate: client sent no server name and none covers address %s; %s", e.Local, remedy)
	default:
		return "keyturn: choosing a certificate: client sent no server name and the local address is unknown; set a default"
	}
}

var (
	errNoOpen   = errors.New("the Lazy has no Open")
	errPanicked = errors.New("its Open panicked")
)

// failed says what was being done to which id.
func failed(doing, id string, err error) error {
	return fmt.Errorf("keyturn: %s certificate %.100q: %w", doing, id, err)
}

// refuse tells observers of a change that is not made, and returns the error.
func (s *Store) refuse(doing, id string, err error) error {
	err = failed(doing, id, err)
	s.tell(Event{Kind: Refused, ID: id, Err: err})
	return err
}
