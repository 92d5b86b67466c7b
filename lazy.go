// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// A Lazy is a certificate that is not parsed, and whose key is not opened, before
// a handshake needs it: the way to hold very many. See [Store.Load].
type Lazy struct {
	// Names are what the certificate is found by: DNS names (A-labels, any case),
	// wildcards like "*.example.com", and IP addresses. The certificate must cover
	// each of them. At most 1000. Nil is for client certificates and for the
	// default: no server name leads to it.
	Names []string

	// NotBefore and NotAfter bound the validity of the certificate, for the choice
	// among several before it is opened. Zero means unbounded.
	NotBefore, NotAfter time.Time

	// Obtained says how new the certificate is, for the choice among several. Zero
	// is older than everything else.
	Obtained time.Time

	// KeyType is the kind of its key, for the choice among several before it is
	// opened. Unknown counts as ECDSA.
	KeyType x509.PublicKeyAlgorithm

	// Client makes GetClientCertificate consider the certificate, which must then
	// allow the use by TLS clients. If false, only servers use it.
	Client bool

	// Open parses the certificate and opens its key. It is called at most once, in
	// the first handshake that needs it, while others that need it wait: it should
	// take no longer than a handshake may. It must not call methods of the Store
	// that change it. Required.
	Open func() (tls.Certificate, error)
}
