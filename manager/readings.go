// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// readings are what a manager that runs has read of what all certificates have in
// common: the configuration, who is paused, what issuers keep, the groups and the
// epoch. The bus tells it when one of them changes, so that a thousand renewals need
// not ask a thousand times.
//
// What is followed may come late. A reading is hence good for a renewal only if it
// was begun after the certificate's state was read: whoever changes the
// configuration and then marks a certificate has it renewed by what was changed.
// What changes after that comes while the renewal is under way, as it always could.
type readings struct {
	mu       sync.Mutex
	followed bool               // guarded by mu; the bus tells of changes
	changes  uint64             // guarded by mu; how many it has told of
	byKey    map[string]reading // guarded by mu
}

// A reading is an answer of the bus.
type reading struct {
	entry bus.Entry
	err   error // bus.ErrNotFound, or nil
	began time.Time
}

type asOfKey struct{}

// asOf returns a context within which a reading is good that was begun after a time;
// for the zero Time, whichever there is.
func asOf(ctx context.Context, t time.Time) context.Context {
	return context.WithValue(ctx, asOfKey{}, t)
}

// get returns a key's newest entry, or bus.ErrNotFound: as it stands, or, within
// asOf, as it was read.
func (m *Manager) get(ctx context.Context, key string) (bus.Entry, error) {
	since, ok := ctx.Value(asOfKey{}).(time.Time)
	if !ok || !bus.InScope(key, confScope) {
		return m.log.Get(ctx, key)
	}
	known, changes := m.readings.find(key, since)
	if known != nil {
		return known.entry, known.err
	}
	r := reading{began: time.Now()}
	r.entry, r.err = m.log.Get(ctx, key)
	if r.err == nil || errors.Is(r.err, bus.ErrNotFound) {
		m.readings.put(key, r, changes)
	}
	return r.entry, r.err
}

// readConf reads at once what an attempt by an issuer needs one after the other. That
// it cannot is said by whoever needs it.
func (m *Manager) readConf(ctx context.Context, issuer string) {
	if !m.readings.kept() {
		return
	}
	var work sync.WaitGroup
	for _, key := range []string{event.ConfigKey, event.ControlKey(issuer), event.IssuerKey(issuer)} {
		work.Go(func() { _, _ = m.get(ctx, key) })
	}
	work.Wait()
}

// kept reports whether a reading is good for anybody else.
func (l *readings) kept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.followed
}

// find returns the reading of a key that is good; nil if there is none. changes is
// for put.
func (l *readings) find(key string, since time.Time) (r *reading, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.byKey[key]; ok && known.began.After(since) {
		return &known, l.changes
	}
	return nil, l.changes
}

// put keeps a reading, unless something has changed since find was asked.
func (l *readings) put(key string, r reading, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.followed && l.changes == changes {
		l.byKey[key] = r
	}
}

// take is told of changes.
func (l *readings) take(u bus.Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.CaughtUp {
		l.followed = true
		return
	}
	if r, ok := l.byKey[u.Key]; !ok || r.entry.Position != u.Position {
		l.changes++
		delete(l.byKey, u.Key)
	}
}

// drop lets go of the reading of a key that this manager writes.
func (l *readings) drop(key string) {
	if !bus.InScope(key, confScope) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes++
	delete(l.byKey, key)
}

// end lets go of all: the bus tells of changes no more.
func (l *readings) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = false
	l.changes++
	clear(l.byKey)
}
