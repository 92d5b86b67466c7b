// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// ErrNotManager means that nothing that this identity writes would be believed.
var ErrNotManager = errors.New("this identity is not, or no longer, a manager of this bus: " +
	"another manager has to add its public key, or the identity of one has to be used")

// A trust is whose entries are believed. It is never changed.
type trust struct {
	keys []*seal.VerifyKey
	// serial is the set's, or what the caller knows of keys.
	serial uint64
	// set is the newest on the bus; nil before it was read, where there is none,
	// and where it is not to be believed, for the reason in problem.
	set     *event.ManagerSet
	sets    []*event.ManagerSet // the chain, set being the last
	former  []event.ManagerKey  // managers of earlier sets that are not in set
	problem error
	chain   []byte // what set is from, as it stood on the bus
	read    bool   // the bus was asked
}

// lookAgain is the time after which a signer that was not among the managers is
// looked for among them again: forged entries must not make a manager ask the
// bus for each.
const lookAgain = time.Second

// maxStrangers bounds how many of them are remembered.
const maxStrangers = 1000

// trusted returns whose entries are believed. The error is a *busError.
func (m *Manager) trusted(ctx context.Context) (*trust, error) {
	if t := m.trust.Load(); t.read {
		return t, nil
	}
	return m.lookUpManagers(ctx)
}

// lookUpManagers reads on the bus who the managers are. The error is a
// *busError: an entry that is not to be believed changes nothing.
func (m *Manager) lookUpManagers(ctx context.Context) (*trust, error) {
	entry, err := m.newest(ctx, event.ManagersKey)
	if err != nil {
		return nil, &busError{fmt.Errorf("reading who the managers are: %w", err)}
	}
	return m.learn(entry.Data), nil
}

// learn takes what stands under event.ManagersKey, nil if nothing does, and
// returns whose entries are believed from now on.
func (m *Manager) learn(data []byte) *trust {
	for {
		old := m.trust.Load()
		next := *old
		next.read, next.problem = true, nil
		if data != nil {
			next.follow(m.tenant, data)
		}
		if old.read && old.serial == next.serial && (old.set == nil) == (next.set == nil) && (old.problem == nil) == (next.problem == nil) {
			return old
		}
		if !m.trust.CompareAndSwap(old, &next) {
			continue
		}
		if m.learnt != nil && next.problem == nil && (old.serial < next.serial || old.chain == nil) && next.chain != nil {
			m.learnt(next.chain)
		}
		if next.problem != nil {
			m.logger.Error("the list of managers on the bus is left out", "error", next.problem)
		}
		m.mu.Lock()
		clear(m.strangers)
		clear(m.judged) // a proof may be one now
		clear(m.beliefs)
		m.mu.Unlock()
		return &next
	}
}

// learnNewer learns a list of managers, from wherever it is, if it is one that
// follows from those that are known and no older one.
func (m *Manager) learnNewer(data []byte) {
	t := *m.trust.Load()
	t.problem = nil
	if t.follow(m.tenant, data); t.problem == nil {
		m.learn(data)
	}
}

// follow goes on to the newest set of a signed event.ManagerChain, if that
// follows from the keys that are trusted.
func (t *trust) follow(tenant string, data []byte) {
	set, err := event.OpenManagers(t.keys, t.serial, tenant, data)
	if err != nil {
		t.problem = err
		return
	}
	t.keys, t.serial, t.set, t.chain = set.Trusted(), set.Serial, set, data
	t.sets, t.former = setsOf(tenant, data), nil
	for _, s := range t.sets {
		for _, k := range s.Keys {
			same := func(o event.ManagerKey) bool { return bytes.Equal(o.Key, k.Key) }
			if !slices.ContainsFunc(set.Keys, same) && !slices.ContainsFunc(t.former, same) {
				t.former = append(t.former, k)
			}
		}
	}
}

// setsOf returns the sets of a chain that was verified.
func setsOf(tenant string, data []byte) []*event.ManagerSet {
	var sets []*event.ManagerSet
	e, err := event.Trusted(tenant, data)
	if err != nil {
		return nil
	}
	chain, ok := e.Body.(*event.ManagerChain)
	if !ok {
		return nil
	}
	for _, data := range chain.Sets {
		if e, err := event.Trusted(tenant, data); err == nil {
			if s, ok := e.Body.(*event.ManagerSet); ok {
				sets = append(sets, s)
			}
		}
	}
	return sets
}

// open verifies and decodes an entry that a manager signed. If it is not one
// that is known, the bus is asked who the managers are by now. A *busError says
// that it could not be.
func (m *Manager) open(ctx context.Context, key string, data []byte) (*event.Event, error) {
	return m.openWith(ctx, key, data, m.openBy)
}

// openOnce is open of what nobody needs again soon: nothing of it is remembered, and
// the caller may use the bytes for something else then.
func (m *Manager) openOnce(ctx context.Context, key string, data []byte) (*event.Event, error) {
	return m.openWith(ctx, key, data, func(t *trust, key string, data []byte) (*event.Event, error) {
		return event.Open(t.keys, m.tenant, key, data)
	})
}

func (m *Manager) openWith(ctx context.Context, key string, data []byte, openBy func(*trust, string, []byte) (*event.Event, error)) (*event.Event, error) {
	t, err := m.trusted(ctx)
	if err != nil {
		return nil, err
	}
	e, err := openBy(t, key, data)
	if !errors.Is(err, seal.ErrUnknownSigner) || !m.worthAsking(data) {
		return e, err
	}
	now, gone := m.lookUpManagers(ctx)
	if gone != nil {
		return nil, gone
	}
	if now == t {
		return nil, err
	}
	return openBy(now, key, data)
}

// openFollowed is open for whoever follows the bus, and so gets each entry once:
// while the bus cannot be asked who the managers are, it waits, until ctx ends.
func (m *Manager) openFollowed(ctx context.Context, entry bus.Entry) (*event.Event, error) {
	return patiently(ctx, func() (*event.Event, error) { return m.open(ctx, entry.Key, entry.Data) })
}

// worthAsking reports whether the signer of data was not looked for just now.
func (m *Manager) worthAsking(data []byte) bool {
	e, err := event.Trusted(m.tenant, data) // for the signer's id only
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.strangers[e.Signer]; ok && time.Since(at) < lookAgain {
		return false
	}
	if len(m.strangers) >= maxStrangers {
		clear(m.strangers)
	}
	m.strangers[e.Signer] = time.Now()
	return true
}

// disbelief says that an entry is not to be believed, unless the reason is that
// the bus could not be asked who the managers are.
func disbelief(what string, err error) error {
	var gone *busError
	if errors.As(err, &gone) {
		return err
	}
	return fmt.Errorf("%s on the bus is not to be believed: %w", what, err)
}

// mayWrite returns ErrNotManager unless what this manager signs is believed, and by
// which trust.
func (m *Manager) mayWrite(ctx context.Context) (*trust, error) {
	t, err := m.trusted(ctx)
	if err != nil {
		return nil, err
	}
	if t.set == nil {
		if t.problem == nil || errors.Is(t.problem, event.ErrOldManagers) {
			return t, nil
		}
		return nil, fmt.Errorf("%w: %w", ErrNotManager, t.problem)
	}
	if own := m.identity.Signing.Public(); !slices.ContainsFunc(t.keys, own.Equal) {
		return nil, fmt.Errorf("%w (its key is %s)", ErrNotManager, own.ID())
	}
	return t, nil
}

// patiently repeats what fails because the bus could not be asked, until ctx
// ends.
func patiently[T any](ctx context.Context, try func() (T, error)) (T, error) {
	for {
		v, err := try()
		var gone *busError
		if !errors.As(err, &gone) || ctx.Err() != nil {
			return v, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(refollow):
		}
	}
}
