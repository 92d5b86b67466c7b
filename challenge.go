// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"errors"
	"maps"
	"strings"
)

// ACMETLS1 is the protocol by which an ACME CA looks whether a server controls its name
// (ALPN, RFC 8737, section 6.2).
const ACMETLS1 = "acme-tls/1"

var (
	errNoChallenge = errors.New("keyturn: answering a CA: the client asks by " + ACMETLS1 + ", and there is no challenge for its server name")
	errAnswered    = errors.New("keyturn: a CA's challenge was answered by " + ACMETLS1 + "; the connection is for nothing else")
)

// challengeProtos are the NextProtos of the configs that answer challenges, which are
// told from others by this very slice.
var challengeProtos = []string{ACMETLS1}

// SetChallenges makes certs the answers of a source to tls-alpn-01 challenges, in place of
// all that it had set before; nil is none. A source is whoever sets them, by a name of its
// choice, so that several can use one Store; where two have a name, either answers. The
// keys are the server names by which CAs ask: DNS names in A-labels, and for IP addresses
// names below in-addr.arpa or ip6.arpa (RFC 8738, section 6). Package solver/tlsalpn01
// makes keys and certificates; they are not checked here. What certs leads to must not be
// changed afterwards.
//
// Handshakes of configs of [Store.ServerConfig], by themselves or below a [Trust], answer
// by TLS 1.3, and fail then, after the CA has seen all that it wants to see: so no server
// takes a CA, or whoever else speaks acme-tls/1, for a client, whatever it asks of these.
// A config that has no more than [Store.GetCertificate] has to have [ACMETLS1] among its
// NextProtos, and its server has to close connections for which that was negotiated, as
// net/http does; where the config asks for client certificates, no CA gets through.
//
// Where there is no challenge for a name, whoever asks is refused without a look at the
// certificates, and nobody is told.
func (s *Store) SetChallenges(source string, certs map[string]*tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sources == nil {
		s.sources = make(map[string]map[string]*tls.Certificate)
	}
	s.sources[source] = maps.Clone(certs)
	if len(certs) == 0 {
		delete(s.sources, source)
	}
	all := make(map[string]*tls.Certificate)
	for _, certs := range s.sources {
		for name, cert := range certs {
			all[strings.ToLower(name)] = cert
		}
	}
	s.challenges.Store(&all)
}

// asksChallenge reports whether a client speaks acme-tls/1 and nothing else, as RFC 8737,
// section 3, has it.
func asksChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ACMETLS1
}

// challenge returns the answer for a server name as a client sent it, or nil.
func (s *Store) challenge(name string) *tls.Certificate {
	certs := s.challenges.Load()
	if certs == nil || len(*certs) == 0 || len(name) > maxName+1 {
		return nil
	}
	return (*certs)[strings.ToLower(strings.TrimSuffix(name, "."))]
}

// answer is GetCertificate for a client that asks for the answer to a challenge.
func (s *Store) answer(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := s.challenge(hello.ServerName); cert != nil {
		return cert, nil
	}
	return nil, errNoChallenge
}

// configFor is the GetConfigForClient of configs of ServerConfig.
func (s *Store) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !asksChallenge(hello) {
		return nil, nil
	}
	cert := s.challenge(hello.ServerName)
	if cert == nil {
		return nil, nil // there is no protocol in common
	}
	return &tls.Config{
		// Before TLS 1.3 a server cannot refuse what the client takes for made.
		MinVersion:             tls.VersionTLS13,
		NextProtos:             challengeProtos,
		Certificates:           []tls.Certificate{*cert},
		SessionTicketsDisabled: true,
		// A client that is asked for its certificate has verified all of the server's
		// side before it answers that it has none, and only then is it refused.
		ClientAuth:       tls.RequestClientCert,
		VerifyConnection: func(tls.ConnectionState) error { return errAnswered },
	}, nil
}

// answersChallenge reports whether a config is one of configFor.
func answersChallenge(c *tls.Config) bool {
	return len(c.NextProtos) == 1 && &c.NextProtos[0] == &challengeProtos[0]
}
