// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/solver"
)

const (
	// challengeLife is how long replicas answer a challenge that nobody takes back:
	// longer than an issuance takes.
	challengeLife = 2 * issueTimeout
	// undoTimeout bounds the taking back of what comes to nothing: a challenge, or a
	// certificate.
	undoTimeout = 10 * time.Second
)

// solveOverBus lets the replicas of the challenge's group answer it. It returns when all
// of them do that are live.
func (m *Manager) solveOverBus(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	if m.board == nil {
		return nil, ErrNoBoard
	}
	if err := solver.CheckToken(c.Token); err != nil {
		return nil, err
	}
	one := event.Challenge{Type: c.Type, Name: c.Name, Token: c.Token, Authorization: c.KeyAuthorization, Expires: time.Now().Add(challengeLife).Truncate(time.Second)}
	if c.Expires.After(time.Now()) && c.Expires.Before(one.Expires) {
		one.Expires = c.Expires
	}
	g := m.answersOf(c.Group)
	watch := g.watch(ctx)
	defer watch.end()
	at, err := g.add(ctx, one)
	if err != nil {
		return nil, err
	}
	if err := watch.wait(ctx, c.Name, at); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return nil, errors.Join(err, g.remove(undo, one))
	}
	m.logger.Debug("the replicas answer a challenge", "group", c.Group, "name", c.Name, "type", c.Type)
	var once sync.Once
	return func(ctx context.Context) (err error) {
		once.Do(func() { err = g.remove(ctx, one) })
		return err
	}, nil
}

// An answers is what one group's replicas answer, as far as this process has a part in
// it: what it adds and removes at about the same time, it writes at once.
type answers struct {
	m     *Manager
	group string
	turn  chan struct{} // held by whoever writes

	mu    sync.Mutex
	queue []*answerChange   // guarded by mu; what is to be written
	uses  map[answerKey]int // guarded by mu; how many challenges wait for an answer
	fresh bool              // guarded by mu; something in queue was not tried yet
	tried time.Time         // guarded by mu; when it was written last
	seen  *view             // guarded by mu; of the group, nil while nobody watches
	users int               // guarded by mu; of seen
	stop  func()            // guarded by mu; ends what fills seen
}

// An answerKey tells challenges apart: an order that is resumed asks for the same ones.
type answerKey struct{ kind, name, token string }

func keyOfAnswer(c event.Challenge) answerKey { return answerKey{c.Type, c.Name, c.Token} }

// answersOf returns what is known of a group's.
func (m *Manager) answersOf(group string) *answers {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.answers[group]
	if g == nil {
		g = &answers{m: m, group: group, turn: make(chan struct{}, 1), uses: make(map[answerKey]int)}
		m.answers[group] = g
	}
	return g
}

// An answerChange is a challenge that is added, or removed.
type answerChange struct {
	event.Challenge
	remove bool

	// What keeps an addition waiting, "" if nothing, and whether nobody waits for it any
	// more. Guarded by answers.mu.
	held      string
	withdrawn bool

	done chan struct{} // closed when what follows is final
	at   bus.Position  // where the entry stands that says so
	err  error
}

// add returns where the entry stands by which replicas answer a challenge. It waits while
// there is no room for more, or another order's challenge is answered for the name.
func (g *answers) add(ctx context.Context, c event.Challenge) (bus.Position, error) {
	g.mu.Lock()
	g.uses[keyOfAnswer(c)]++
	change := g.enqueueLocked(c, false)
	g.mu.Unlock()
	err := g.write(ctx, change)
	if err == nil {
		return change.at, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return bus.Position{}, errors.Join(err, g.remove(undo, c))
}

// remove ends an answer, unless another challenge waits for the same.
func (g *answers) remove(ctx context.Context, c event.Challenge) error {
	g.mu.Lock()
	key := keyOfAnswer(c)
	if g.uses[key]--; g.uses[key] > 0 {
		g.mu.Unlock()
		return nil
	}
	delete(g.uses, key)
	change := g.enqueueLocked(c, true)
	g.mu.Unlock()
	if err := g.write(ctx, change); err != nil {
		return fmt.Errorf("taking back the challenge for %s, which replicas answer until %s: %w", c.Name, c.Expires.UTC().Format(time.DateTime), err)
	}
	return nil
}

func (g *answers) enqueueLocked(c event.Challenge, remove bool) *answerChange {
	change := &answerChange{Challenge: c, remove: remove, done: make(chan struct{})}
	g.queue, g.fresh = append(g.queue, change), true
	return change
}
