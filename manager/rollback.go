// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"reflect"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// maxJudged bounds how many proofs are remembered: if there are more, all are
// forgotten, and judged again when they come again.
const maxJudged = 10_000

// A judgement is what is known of something that was given as proof.
type judgement struct {
	id string // of the managed certificate; "" if it is no proof at all
	// at is where the state stood that it was last held against; zero if there was
	// none.
	at bus.Position
}

// prove answers something that a group's replica holds as proof that the log
// went back: an event that a manager signed, and that is newer than what stands
// on the bus. Then the epoch is raised, so that whatever is made from now on is
// above what was lost, and the certificate made anew, or removed again.
//
// Anything else changes nothing, however often it comes. The error says that
// the bus could not be asked. Known returns the state of an id as it was last
// seen, nil if it never was.
func (m *Manager) prove(ctx context.Context, group, by string, data []byte, known func(id string) *Managed) error {
	sum := sha256.Sum256(data)
	m.mu.Lock()
	j, judged := m.judged[sum]
	m.mu.Unlock()
	if judged && (j.id == "" || positionOf(known(j.id)) == j.at) {
		return nil
	}
	e, err := m.openProof(ctx, group, data)
	var gone *busError
	if errors.As(err, &gone) {
		return err
	}
	if err != nil {
		m.refuseProof(sum, group, by, err)
		return nil
	}
	id := path.Base(e.Key)
	at, err := m.answer(ctx, group, id, e)
	if err != nil {
		return fmt.Errorf("answering the proof that the log lost %s of %s: %w", versionOf(e.Body), id, err)
	}
	m.judge(sum, judgement{id, at})
	return nil
}

func positionOf(c *Managed) bus.Position {
	if c == nil {
		return bus.Position{}
	}
	return c.Position
}

// openProof verifies a proof: a manager signed it, for this group.
func (m *Manager) openProof(ctx context.Context, group string, data []byte) (*event.Event, error) {
	e, err := event.Trusted(m.tenant, data) // to know for which key it was signed
	if err != nil {
		return nil, err
	}
	if !bus.InScope(e.Key, event.GroupScope(group)) {
		return nil, fmt.Errorf("%w: %s is not of group %q", event.ErrMoved, e.Key, group)
	}
	t, err := m.trusted(ctx) // a replica must not make a manager ask the bus for each
	if err != nil {
		return nil, err
	}
	if e, err = event.Open(t.keys, m.tenant, e.Key, data); err != nil {
		return nil, err
	}
	if versionOf(e.Body) == (event.Version{}) {
		return nil, event.ErrUnsupported
	}
	return e, nil
}

// versionOf returns the version of a group's event; zero if it is none.
func versionOf(b event.Body) event.Version {
	switch b := b.(type) {
	case *event.Certificate:
		return b.Version
	case *event.Removal:
		return b.Version
	}
	return event.Version{}
}

func (m *Manager) judge(sum [sha256.Size]byte, j judgement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.judged) >= maxJudged {
		clear(m.judged)
	}
	m.judged[sum] = j
}

// refuseProof counts what is no proof, and logs the first of each member.
func (m *Manager) refuseProof(sum [sha256.Size]byte, group, by string, err error) {
	m.judge(sum, judgement{})
	m.count(func(s *Stats) { s.ProofsRefused++ })
	m.mu.Lock()
	first := !m.liars[by]
	m.liars[by] = true
	m.mu.Unlock()
	if first {
		m.logger.Warn("what a replica gives as proof of a lost entry is none", "group", group, "member", by, "error", err)
	}
}

// answer holds a proof against the state, does what follows, and returns where
// the state stood that was in order, or has been answered.
func (m *Manager) answer(ctx context.Context, group, id string, e *event.Event) (bus.Position, error) {
	for {
		c, err := m.Get(ctx, id)
		var missing *NotFoundError
		if errors.As(err, &missing) {
			m.logger.Error("a certificate is served that the bus does not know: the log lost it altogether", "group", group, "managed_id", id, "version", versionOf(e.Body).String())
			return bus.Position{}, nil
		}
		if err != nil {
			return bus.Position{}, err
		}
		if !behind(m.tenant, c, e) {
			return c.Position, nil
		}
		if err := m.raiseEpoch(ctx, versionOf(e.Body).Epoch); err != nil {
			return bus.Position{}, err
		}
		_, removal := e.Body.(*event.Removal)
		switch {
		case removal || c.Removed:
			err = m.remove(ctx, c)
		case c.Mark != nil:
			return c.Position, nil // its next generation is due, and in the new epoch
		default:
			err = m.mark(ctx, c, event.ReasonRollback)
		}
		if conflict(err) {
			continue
		}
		if err != nil {
			return bus.Position{}, err
		}
		m.logger.Error("the log went back: it lost a newer version of a certificate, which is made anew", "group", group, "managed_id", id,
			"names", c.Spec.Names, "lost", versionOf(e.Body).String(), "found", c.Version.String())
	}
}

// behind reports whether a state is not what, or above what, a proof says. What
// was signed anew says the same.
func behind(tenant string, c *Managed, e *event.Event) bool {
	v := versionOf(e.Body)
	if c.Version != v {
		return c.Less(v)
	}
	current, err := event.Trusted(tenant, c.Current) // it was verified with the state
	return err == nil && !reflect.DeepEqual(current.Body, e.Body)
}

// raiseEpoch makes the log's epoch higher than the given one, if it is not.
func (m *Manager) raiseEpoch(ctx context.Context, above uint64) error {
	for {
		info, at, err := get[*event.LogInfo](ctx, m, event.LogInfoKey)
		if err != nil {
			return err
		}
		if info.Epoch > above {
			return nil
		}
		_, err = m.append(ctx, at, &event.LogInfo{Epoch: above + 1})
		switch {
		case err == nil:
			m.count(func(s *Stats) { s.Rollbacks++ })
			m.logger.Error("the log went back: its epoch is raised", "from", info.Epoch, "to", above+1)
			return nil
		case !conflict(err):
			return fmt.Errorf("raising the epoch of the log: %w", err)
		}
	}
}

// evidence is what one member, or this manager's memory, holds against the log.
type evidence struct {
	group  string
	proofs [][]byte
}

// accuse takes evidence, in place of what the same one gave before.
func (s *scheduler) accuse(by string, e evidence) {
	s.mu.Lock()
	s.evidence[by] = e
	s.mu.Unlock()
	notify(s.accused)
}

// proven is the view's: what a member gave as proofs.
func (s *scheduler) proven(group, member string, proofs [][]byte) {
	s.accuse(member, evidence{group, proofs})
}

// remembered takes note if a state is older than what it was, or has another
// certificate of the same version.
func (s *scheduler) remembered(old, c *Managed) {
	if old == nil || len(old.Current) == 0 || old.Less(c.Version) ||
		old.Version == c.Version && old.Removed == c.Removed && reflect.DeepEqual(old.Certificate, c.Certificate) {
		return
	}
	s.accuse("this manager: "+c.ID, evidence{c.Spec.Group, [][]byte{old.Current}})
}

// judgeAll answers the evidence that there is, and returns an error if some has
// to wait until the bus can be asked.
func (s *scheduler) judgeAll() error {
	s.mu.Lock()
	all := s.evidence
	s.evidence = make(map[string]evidence)
	s.mu.Unlock()
	var failed error
	for by, e := range all {
		for i, data := range e.proofs {
			err := s.m.prove(s.ctx, e.group, by, data, s.state)
			if err == nil {
				continue
			}
			failed = err
			s.mu.Lock()
			if _, newer := s.evidence[by]; !newer {
				s.evidence[by] = evidence{e.group, e.proofs[i:]}
			}
			s.mu.Unlock()
			break
		}
	}
	return failed
}

// state returns what was last seen of an id, nil if nothing was.
func (s *scheduler) state(id string) *Managed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[id]
}

// watch answers evidence until Run ends.
func (s *scheduler) watch() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.accused:
		}
		if err := s.judgeAll(); err != nil && s.ctx.Err() == nil {
			s.m.logger.Warn("that the log went back is not answered yet; trying on", "error", err)
			select {
			case <-s.ctx.Done():
			case <-time.After(afterFailure):
			}
			notify(s.accused)
		}
	}
}
