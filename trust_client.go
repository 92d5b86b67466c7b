// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
)

// ClientConfig returns a new config for a client that believes the servers that t says.
// The server must have name: a DNS name, an IP address, or a URI, as a SPIFFE id is one.
// With "" it must have the name that is connected to, which crypto/tls knows of no IP
// address: use [Trust.Dialer] for these. Where there is no name at all the handshake
// is refused with [ErrNoServerName]. [Trust.SetServerName] goes before both.
//
// To show a certificate of a Store as well:
//
//	config := store.ClientConfig(trust.ClientConfig("db.internal"))
//
// The config is the caller's to change, but for InsecureSkipVerify and VerifyConnection:
// the server's name, chain, validity and extended key usage are verified by the
// latter, which sees resumed sessions too, and the former only keeps crypto/tls from
// doing so with roots that cannot change. So [tls.ConnectionState.VerifiedChains]
// stays empty. Errors are [*tls.CertificateVerificationError].
//
// The config caches up to 64 sessions; set ClientSessionCache to nil for none.
func (t *Trust) ClientConfig(name string) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // see above
		ClientSessionCache: &sessionCache{tls.NewLRUClientSessionCache(0), t.era.Load},
		VerifyConnection:   func(cs tls.ConnectionState) error { return t.verifyServer(cs, name) },
	}
	if !isURI(name) {
		_, config.ServerName = hostOf(name)
	}
	return config
}

// Dialer returns a function that connects with TLS and believes the servers that t says,
// as the DialTLSContext of [net/http.Transport]. It is what [Trust.ClientConfig] cannot
// be: it knows the IP address that it connects to, and the server name that it sends is
// always that of [Trust.SetServerName]. The connections are of type [*tls.Conn], and their
// handshakes are done.
//
// base has what is to be set otherwise, like certificates, see [Store.ClientConfig], and
// NextProtos, which needs "h2" for HTTP/2; nil means a zero config. Its ServerName goes
// before the address. Its RootCAs and InsecureSkipVerify are not used. Its VerifyConnection
// is called as well, so it must not be a config of ClientConfig, which does not know the
// address. Sessions are resumed if it has a ClientSessionCache.
//
// dial makes the connections, see [Store.Dialer]; nil means a zero [net.Dialer].
func (t *Trust) Dialer(base *tls.Config, dial DialFunc) DialFunc {
	if base = base.Clone(); base == nil {
		base = new(tls.Config)
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := t.dialConfig(base, address)
		if err != nil {
			return nil, fmt.Errorf("keyturn: connecting to %.100q: %w", address, err)
		}
		inner, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(inner, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			inner.Close()
			return nil, err
		}
		return conn, nil
	}
}

// dialConfig returns the config for one connection.
func (t *Trust) dialConfig(base *tls.Config, address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config := base.Clone()
	name := cmp.Or(base.ServerName, host)
	_, config.ServerName = hostOf(name)
	if set := t.ServerName(); set != "" && !isURI(set) {
		_, config.ServerName = hostOf(set)
	}
	config.InsecureSkipVerify = true // VerifyConnection does it
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := t.verifyServer(cs, name); err != nil || base.VerifyConnection == nil {
			return err
		}
		return base.VerifyConnection(cs)
	}
	if config.ClientSessionCache != nil {
		config.ClientSessionCache = fixed(&sessionCache{config.ClientSessionCache, t.era.Load})
	}
	return config, nil
}

// verifyServer verifies the server of a handshake, full or resumed.
func (t *Trust) verifyServer(cs tls.ConnectionState, name string) error {
	s := t.load()
	if s.insecure {
		return nil
	}
	if name = cmp.Or(s.serverName, name, cs.ServerName); name == "" {
		return fmt.Errorf("keyturn: verifying the server: %w; give it to ClientConfig or SetServerName, or connect with Dialer", ErrNoServerName)
	}
	if err := s.checkServer(cs.PeerCertificates, name); err != nil {
		return &tls.CertificateVerificationError{
			UnverifiedCertificates: cs.PeerCertificates,
			Err:                    fmt.Errorf("keyturn: verifying server %.100q: %w", name, err),
		}
	}
	return nil
}

func (s *settings) checkServer(chain []*x509.Certificate, name string) error {
	if len(chain) == 0 { // crypto/tls lets no server do that
		return ErrEmpty
	}
	leaf := chain[0]
	options := x509.VerifyOptions{
		Roots:         s.rootCAs,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if !isURI(name) {
		if options.DNSName, _ = hostOf(name); options.DNSName == "" {
			return ErrNoServerName // crypto/x509 would take any
		}
	}
	if _, err := leaf.Verify(options); err != nil {
		return err
	}
	if isURI(name) {
		want, err := parsePeerName(name)
		if err != nil {
			return err
		}
		if want.below() {
			return fmt.Errorf("%w: %.100q is not one URI but many; give those to SetPeerNames", ErrBadName, name)
		}
		if !want.matches(leaf) {
			return fmt.Errorf("%w: that of %s does not have this URI", ErrPeerName, describe(leaf))
		}
	}
	return s.checkPeer(leaf)
}
