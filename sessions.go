// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"strconv"
)

// A mark in a ticket says under what a session was made. It is random.
type mark [16]byte

func newMark() (m mark) {
	rand.Read(m[:]) // never fails
	return m
}

func (m *mark) in(state *tls.SessionState) bool {
	return slices.ContainsFunc(state.Extra, func(extra []byte) bool { return bytes.Equal(extra, m[:]) })
}

// sessions are those that a server may resume: their tickets bear a mark, and the server
// that wants to resume none of them any more takes other sessions. It does not change.
type sessions struct {
	mark mark

	// keys seals the tickets of configs that have no way of their own to do that. It is
	// never cloned nor given to anybody, so that crypto/tls makes its keys, turns them
	// daily, and opens with each for seven days.
	keys tls.Config
}

func newSessions() *sessions { return &sessions{mark: newMark()} }

// limit makes a server's config resume only what current returns when it resumes, and
// what its WrapSession and UnwrapSession, if it has them, agree to. Of these it resumes
// only what was made with the mark own: another config may verify clients otherwise, and
// crypto/tls calls no VerifyPeerCertificate for what is resumed.
func limit(config *tls.Config, own *mark, current func() *sessions) {
	wrap, unwrap := config.WrapSession, config.UnwrapSession
	config.WrapSession = func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		s := current()
		state.Extra = append(state.Extra, s.mark[:], own[:])
		if wrap != nil {
			return wrap(cs, state)
		}
		return s.keys.EncryptTicket(cs, state)
	}
	config.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s := current()
		var state *tls.SessionState
		var err error
		if unwrap != nil {
			state, err = unwrap(ticket, cs)
		} else {
			state, err = s.keys.DecryptTicket(ticket, cs)
		}
		if err != nil || state == nil || !s.mark.in(state) || !own.in(state) {
			return nil, err
		}
		return state, nil
	}
}

// session returns the sessions that a server with the certificates of s may resume.
func (s *Store) session() *sessions {
	for {
		if current := s.sessions.Load(); current != nil {
			return current
		}
		s.sessions.CompareAndSwap(nil, newSessions())
	}
}

// A sessionCache is a client's cache that forgets all when what the sessions were made
// under has changed.
type sessionCache struct {
	tls.ClientSessionCache
	era func() uint64 // counts the changes
}

func (c *sessionCache) Get(key string) (*tls.ClientSessionState, bool) {
	return c.ClientSessionCache.Get(c.inEra(key))
}

func (c *sessionCache) Put(key string, state *tls.ClientSessionState) {
	c.ClientSessionCache.Put(c.inEra(key), state)
}

func (c *sessionCache) inEra(key string) string {
	return strconv.FormatUint(c.era(), 10) + " " + key
}

// fixed returns a cache for one connection, in the eras of now: a ticket may come long
// after the handshake, and belongs to the eras of that.
func fixed(cache tls.ClientSessionCache) tls.ClientSessionCache {
	c, ok := cache.(*sessionCache)
	if !ok {
		return cache
	}
	era := c.era()
	return &sessionCache{fixed(c.ClientSessionCache), func() uint64 { return era }}
}
