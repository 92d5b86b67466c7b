// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// handshakeTimeout bounds a Dialer's handshakes. A [net/http.Transport] does not do that
// for DialTLSContext, nor does it end a dial along with the request that it is for.
const handshakeTimeout = 10 * time.Second

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
// stays empty. Errors are [*tls.CertificateVerificationError]. A VerifyConnection of
// one's own calls the one that was there. Should it not, VerifyPeerCertificate verifies
// full handshakes still, all but the name where that is "".
//
// The config caches up to 64 sessions; set ClientSessionCache to nil for none. Early data
// of QUIC is sent before the server is verified anew: after a change of t, close the
// connections from before it, on which a ticket may still come.
func (t *Trust) ClientConfig(name string) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // see above
		ClientSessionCache: &sessionCache{tls.NewLRUClientSessionCache(0), t.era.Load},
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		return t.verifyServer(cs.PeerCertificates, cmp.Or(name, cs.ServerName), true)
	}
	// It costs each full handshake a second verification. Without it, who sets
	// VerifyConnection would believe any server.
	config.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		chain := make([]*x509.Certificate, len(raw))
		for i := range raw {
			var err error
			if chain[i], err = x509.ParseCertificate(raw[i]); err != nil {
				return err // crypto/tls has parsed it before
			}
		}
		return t.verifyServer(chain, name, false)
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
// handshakes are done, which may take 10 seconds.
//
// A Transport that has a Proxy does not call it for what goes through an HTTP proxy, but
// goes by its TLSClientConfig: set that to a config of ClientConfig("") as well, or the
// system's roots are believed there. [net/http.DefaultTransport] and its clones have one.
//
// base has what is to be set otherwise, like certificates, see [Store.ClientConfig], and
// NextProtos, which needs "h2" for HTTP/2; nil means a zero config. Its ServerName goes
// before the address. Its InsecureSkipVerify is not used, and with RootCAs, which t would
// overrule, nothing is connected to. Its VerifyConnection is called as well, so it must not
// be a config of ClientConfig, which does not know the address. Sessions are resumed if it
// has a ClientSessionCache.
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
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
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
	if base.RootCAs != nil {
		return nil, errors.New("RootCAs is set in what Trust.Dialer was given; leave it out, and use SetRootCAs")
	}
	config := base.Clone()
	name := cmp.Or(base.ServerName, host)
	for _, n := range []string{host, base.ServerName, t.ServerName()} {
		if n != "" && !isURI(n) {
			_, config.ServerName = hostOf(n)
		}
	}
	config.InsecureSkipVerify = true // VerifyConnection does it
	// But not for a server that rejects Encrypted Client Hello (RFC 9849, section 6.1.6).
	config.RootCAs = t.load().rootCAs
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := t.verifyServer(cs.PeerCertificates, name, true); err != nil || base.VerifyConnection == nil {
			return err
		}
		return base.VerifyConnection(cs)
	}
	if config.ClientSessionCache != nil {
		config.ClientSessionCache = fixed(&sessionCache{config.ClientSessionCache, t.era.Load})
	}
	return config, nil
}

// verifyServer verifies the server of a handshake. Without named the name may be
// missing.
func (t *Trust) verifyServer(chain []*x509.Certificate, name string, named bool) error {
	s := t.load()
	if s.insecure {
		return nil
	}
	if name = cmp.Or(s.serverName, name); name == "" && named {
		return fmt.Errorf("keyturn: verifying the server: %w; give it to ClientConfig or SetServerName, or connect with Dialer", ErrNoServerName)
	}
	if err := s.checkServer(chain, name); err != nil {
		about := "the server"
		if name != "" {
			about = fmt.Sprintf("server %.100q", name)
		}
		return &tls.CertificateVerificationError{
			UnverifiedCertificates: chain,
			Err:                    fmt.Errorf("keyturn: verifying %s: %w", about, err),
		}
	}
	return nil
}

// checkServer accepts any name for "", which its caller must not let pass.
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
	if name != "" && !isURI(name) {
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
		if !want.one() {
			return fmt.Errorf("%w: %.100q is not one URI but many; give those to SetPeerNames", ErrBadName, name)
		}
		if !want.matches(leaf) {
			return fmt.Errorf("%w: that of %s does not have this URI", ErrPeerName, describe(leaf))
		}
	}
	return s.checkPeer(leaf)
}
