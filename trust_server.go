// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
)

// What would otherwise take the verification of clients away, and nobody would notice.
var (
	errNotAsked  = errors.New("keyturn: verifying the client: the GetConfigForClient that Trust.ServerConfig set was not called; leave it, or call it where its config is another's answer")
	errOverruled = errors.New("keyturn: verifying clients: ClientAuth or ClientCAs is set in a config that a Trust overrules; leave them out, and use SetClientAuth and SetClientCAs")
)

// ServerConfig returns a new config for a server: a copy of base, which has the
// certificates, with the client authentication of t. A nil base has none. To have both
// of a Store and a Trust:
//
//	config := trust.ServerConfig(store.ServerConfig())
//
// The config answers GetConfigForClient, with a config that is made once for each change
// of t and carries everything of base. So what is to be set is set in base, before:
// NextProtos above all, as what is missing there is missing in every handshake, and
// functions that verify, which are never called if they are set in the config. Later
// changes of base have no effect. Its VerifyConnection, VerifyPeerCertificate and
// GetConfigForClient are called as well; the last one's answer takes base's place, with
// the client authentication of t. Where base, an answer or the config has ClientAuth or
// ClientCAs set, which t would overrule, every handshake is refused. CAs are answered
// whatever t says, see [Store.SetChallenges].
//
// GetConfigForClient is not to be replaced, and crypto/tls does not call that of a config
// which is itself an answer: to choose among several by the server's name, return what
// GetConfigForClient of the one returns. Without that every handshake is refused.
//
// Session tickets are sealed with keys of base, if that is [Store.ServerConfig]'s or
// has WrapSession and UnwrapSession of its own, else with keys of t. Keys set by
// [tls.Config.SetSessionTicketKeys] are not used. Either way none is resumed with another
// config than this and its clones, nor one that was made before the client CAs, the client
// authentication or the names of peers changed.
func (t *Trust) ServerConfig(base *tls.Config) *tls.Config {
	config := base.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	t.change(false, false, func(*settings) {}) // so that there are sessions
	l := &live{trust: t, given: config, base: config.Clone(), own: newMark()}
	config.GetConfigForClient = l.configFor
	config.VerifyConnection = func(tls.ConnectionState) error { return errNotAsked }
	return config
}

// A live config is what servers get from ServerConfig: a config for each of the
// settings that a Trust goes through.
type live struct {
	trust  *Trust
	given  *tls.Config // the caller's
	base   *tls.Config // its owner's only, never changed
	own    mark        // of its sessions
	latest atomic.Pointer[built]
}

type built struct {
	of     *settings
	config *tls.Config
}

func (l *live) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	note(hello)
	base := l.base
	if base.GetConfigForClient != nil {
		answer, err := base.GetConfigForClient(hello)
		if err != nil {
			return nil, err
		}
		if answer != nil && answersChallenge(answer) {
			return answer, nil // a CA is no client, and gets no further than its answer
		}
		if answer != nil {
			base = answer
		}
	}
	for _, c := range [...]*tls.Config{l.given, base} {
		if c.ClientAuth != tls.NoClientCert || c.ClientCAs != nil {
			return nil, errOverruled
		}
	}
	s := l.trust.load()
	if s.refuse != nil {
		return nil, s.refuse
	}
	if base != l.base {
		return l.build(s, base), nil
	}
	latest := l.latest.Load()
	if latest == nil || latest.of != s {
		// Of several that get here at once, any may win: the settings are looked at anew
		// for each handshake.
		latest = &built{s, l.build(s, base)}
		l.latest.Store(latest)
	}
	return latest.config, nil
}

// build returns a copy of base with the client authentication of s.
func (l *live) build(s *settings, base *tls.Config) *tls.Config {
	config := base.Clone()
	config.GetConfigForClient = nil
	config.ClientAuth, config.ClientCAs = s.clientAuth, s.clientCAs
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := s.checkClient(cs); err != nil {
			return fmt.Errorf("keyturn: verifying the client: %w", err)
		}
		if base.VerifyConnection != nil {
			return base.VerifyConnection(cs)
		}
		return nil
	}
	limit(config, &l.own, func() *sessions { return s.sessions })
	return config
}

// checkClient checks what crypto/tls does not.
func (s *settings) checkClient(cs tls.ConnectionState) error {
	if len(s.peers) == 0 || len(cs.PeerCertificates) == 0 {
		return nil
	}
	if s.clientAuth < tls.VerifyClientCertIfGiven {
		return fmt.Errorf("%w: client-auth mode %s verifies no certificate, so that its names mean nothing; set one that does", ErrPeerName, s.clientAuth)
	}
	return s.checkPeer(cs.PeerCertificates[0])
}
