// SPDX-License-Identifier: Apache-2.0

package keyturn

import "crypto/tls"

// A CertManager is the plain view of a [Store]: one certificate, which answers every
// handshake whatever the client asks for. It has the methods of gen.CertManager of the
// Ergo framework, so that it can be given to an Ergo node.
//
// Its zero value has no certificate and is ready to use. All methods may be called at
// once from any goroutine. It must not be copied after first use.
type CertManager struct{ store Store }

// CertManagerID is the id of a [CertManager]'s certificate in its Store.
const CertManagerID = "certificate"

// Update makes cert the certificate, for every handshake that starts after it returned.
// It is checked as by [Store.Put]. One that is refused leaves the one before in place;
// observers of [CertManager.Store] hear why, in an [Event] of the kind [Refused].
func (m *CertManager) Update(cert tls.Certificate) {
	_ = m.Store().Put(CertManagerID, cert) // told to observers
}

// GetCertificate returns the certificate, or one without content if there is none yet.
// What it refers to must not be changed.
func (m *CertManager) GetCertificate() tls.Certificate {
	if cert, ok := m.store.Get(CertManagerID); ok {
		return *cert
	}
	return tls.Certificate{}
}

// GetCertificateFunc returns a function for [tls.Config.GetCertificate]. It fails while
// there is no certificate for servers.
func (m *CertManager) GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.store.GetCertificate
}

// Store returns the Store that has the certificate, as its default, under the id
// [CertManagerID]: to observe, to drain, to make configs of, and to have package reload
// keep it current:
//
//	reload.KeyPair(manager.Store(), keyturn.CertManagerID, "tls.crt", "tls.key")
func (m *CertManager) Store() *Store {
	m.store.SetDefault(CertManagerID) // the zero value has none
	return &m.store
}

// A CertAuthManager is a [CertManager] and a [Trust] together: what one listener or one
// destination needs for mutual TLS. It has the methods of gen.CertAuthManager of the
// Ergo framework, so that it can be given to an Ergo node.
//
// Its zero value has no certificate and is ready to use. All methods may be called at
// once from any goroutine. It must not be copied after first use.
type CertAuthManager struct {
	CertManager
	Trust
}

// ServerConfig returns a new config for a server, see [Store.ServerConfig] and
// [Trust.ServerConfig]. Its protocols are protos, or HTTP/2 and HTTP/1.1 if there are none.
func (m *CertAuthManager) ServerConfig(protos ...string) *tls.Config {
	base := m.store.ServerConfig()
	if len(protos) > 0 {
		base.NextProtos = protos
	}
	return m.Trust.ServerConfig(base)
}

// ClientConfig returns a new config for a client of the server with name, see
// [Trust.ClientConfig], that shows the certificate.
func (m *CertAuthManager) ClientConfig(name string) *tls.Config {
	return m.store.ClientConfig(m.Trust.ClientConfig(name))
}
