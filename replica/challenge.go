// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"crypto/tls"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver/http01"
	"github.com/keyturn/keyturn/solver/tlsalpn01"
)

// challenges is what CAs are answered for the group, whoever ordered.
type challenges struct {
	handler http01.Handler

	mu     sync.Mutex                           // after Replica.mu where both are held
	at     bus.Position                         // guarded by mu; where the newest entry stands, zero before the first
	list   []event.Challenge                    // guarded by mu; those that have not expired
	certs  map[event.Challenge]*tls.Certificate // guarded by mu; the answers to those by TLS
	timer  *time.Timer                          // guarded by mu; nil while nothing can expire
	closed bool                                 // guarded by mu
}

// HTTPHandler returns a handler that answers the group's http-01 challenges, and leaves
// all else to next, nil being 404. It is for port 80 of the host, where CAs look:
//
//	go http.ListenAndServe(":80", r.HTTPHandler(redirect))
//
// The tls-alpn-01 challenges are answered by the Store.
func (r *Replica) HTTPHandler(next http.Handler) http.Handler { return r.challenges.handler.Wrap(next) }

// Where the challenges alone cannot be followed, credentials do not allow it, most
// likely: after so many failures it is tried seldom.
const (
	denials   = 3
	denialEnd = 5 * time.Minute
)

// challengeFollower follows what the group's replicas answer.
func (r *Replica) challengeFollower() *follower {
	failures, said := 0, false
	f := r.memo(r.log, event.ChallengesKey(r.group), func(u bus.Update) error {
		failures = 0
		return r.takeChallenges(u)
	})
	f.lost = func(err error) {
		if !r.following() { // that has been said
			failures = 0
			return
		}
		if failures++; failures >= denials && !said {
			said = true
			r.logger.Warn("the challenges of CAs are not being followed; all else goes on, but CAs that look here find no answer: "+
				"credentials from before there were challenges on the bus do not allow it, so join this host anew, or give its role what docs/dynamodb.md says",
				"scope", f.scope, "error", err)
		}
	}
	f.rest = func() time.Duration {
		if failures < denials {
			return 0
		}
		return denialEnd
	}
	return f
}

// takeChallenges takes what is to be answered from now on, if a manager that is trusted
// says so.
func (r *Replica) takeChallenges(u bus.Update) error {
	if u.CaughtUp {
		return nil
	}
	if body := r.openChallenges(u.Entry); body != nil {
		r.answer(body.List, u.Position)
		r.kick()
	}
	return nil
}

// openChallenges returns nil where it refuses an entry.
func (r *Replica) openChallenges(entry bus.Entry) *event.Challenges {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.strangeChallenges = false
	if entry.Key != event.ChallengesKey(r.group) {
		r.refuse(entry.Key, RefusedMoved, errors.New("it is not what this group answers"))
		return nil
	}
	e, err := event.Open(*r.managers.Load(), r.tenant, entry.Key, entry.Data)
	if err != nil {
		r.strangeChallenges = errors.Is(err, seal.ErrUnknownSigner)
		r.refuse(entry.Key, reasonOf(err), err)
		return nil
	}
	body, ok := e.Body.(*event.Challenges)
	if !ok {
		r.refuse(entry.Key, RefusedUnsupported, event.ErrUnsupported)
		return nil
	}
	if e.Time.Before(r.challengesSigned) {
		r.refuse(entry.Key, RefusedReplay, errOlder)
		return nil
	}
	r.challengesSigned = e.Time
	return body
}

// answer makes list all that is answered, but for what has expired.
func (r *Replica) answer(list []event.Challenge, at bus.Position) {
	c := &r.challenges
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.list, c.at = list, at
	r.answerLocked()
}

// answerLocked answers what has not expired, and sees to it that it ends.
func (r *Replica) answerLocked() {
	c := &r.challenges
	var kept []event.Challenge
	byToken, byName := make(map[string]string), make(map[string]*tls.Certificate)
	certs := make(map[event.Challenge]*tls.Certificate)
	var next time.Duration
	for _, one := range c.list {
		left := time.Until(one.Expires)
		if left <= 0 {
			continue
		}
		switch one.Type {
		case event.ChallengeHTTP01:
			byToken[one.Token] = one.Authorization
		case event.ChallengeTLSALPN01:
			cert := c.certificate(one)
			if cert == nil {
				r.logger.Error("a challenge of a CA cannot be answered: its name is none that a certificate can have", "name", one.Name)
				continue
			}
			certs[one], byName[tlsalpn01.ServerName(one.Name)] = cert, cert
		}
		kept = append(kept, one)
		if next == 0 || left < next {
			next = left
		}
	}
	c.list, c.certs = kept, certs
	c.handler.Set(byToken)
	r.store.SetChallenges(event.ChallengesKey(r.group), byName)
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if len(kept) > 0 {
		c.timer = time.AfterFunc(next, r.expire)
	}
}

// certificate returns the answer to a challenge by TLS, which it makes once; nil if none
// can be made.
func (c *challenges) certificate(one event.Challenge) *tls.Certificate {
	if cert := c.certs[one]; cert != nil {
		return cert
	}
	cert, err := tlsalpn01.Certificate(one.Name, one.Authorization)
	if err != nil {
		return nil
	}
	return cert
}

// expire ends the answers whose time is over.
func (r *Replica) expire() {
	r.challenges.mu.Lock()
	defer r.challenges.mu.Unlock()
	if !r.challenges.closed {
		r.answerLocked()
	}
}

// answered returns how many challenges are answered, and where the entry stands that
// says so, "" before there was one.
func (c *challenges) answered() (n int, at string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() {
		at = c.at.String()
	}
	return len(c.list), at
}

// closeChallenges ends all answers: nothing says any more when they are over.
func (r *Replica) closeChallenges() {
	c := &r.challenges
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.list = true, nil
	r.answerLocked()
}
