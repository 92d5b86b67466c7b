// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

const (
	// gather is how long changes that come together are collected: an order's names
	// are asked for all at once.
	gather = 20 * time.Millisecond
	// holdRetry is how often it is tried to add what has to wait.
	holdRetry = time.Second
	// maxAnswers bounds the challenges of an entry, in bytes, so that it stays below
	// event.MaxSize with its frame; perAnswer is what each takes beside its texts.
	maxAnswers = event.MaxSize - 4<<10
	perAnswer  = 48
)

// write writes what is in the queue, or waits until another call has. The error says
// what the change waited for when ctx ended.
func (g *answers) write(ctx context.Context, change *answerChange) error {
	for {
		select {
		case <-change.done:
			return change.err
		case <-ctx.Done():
			return g.withdraw(ctx, change)
		case g.turn <- struct{}{}:
		}
		g.flush(ctx)
		<-g.turn
		select {
		case <-change.done:
		case <-ctx.Done():
		case <-time.After(holdRetry):
		}
	}
}

// withdraw gives a change up, unless it is just being written. A removal stays in the
// queue, for whoever writes next.
func (g *answers) withdraw(ctx context.Context, change *answerChange) error {
	g.mu.Lock()
	i := slices.Index(g.queue, change)
	if i >= 0 && !change.remove {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	change.withdrawn = true
	held := change.held
	g.mu.Unlock()
	if i < 0 {
		<-change.done // appendTimeout bounds it
		if change.remove {
			return change.err
		}
	}
	if held != "" {
		return fmt.Errorf("%s: %w", held, ctx.Err())
	}
	return fmt.Errorf("telling the replicas of group %q what to answer: %w", g.group, ctx.Err())
}

// flush writes what is in the queue. What has to wait goes back there. The caller holds
// the turn.
func (g *answers) flush(ctx context.Context) {
	if !g.worthwhile() {
		return
	}
	time.Sleep(gather)
	g.mu.Lock()
	changes := g.queue
	g.queue, g.fresh, g.tried = nil, false, time.Now()
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout) // others wait for it, too
	defer cancel()
	held, at, err := g.replace(ctx, changes)
	g.mu.Lock()
	defer g.mu.Unlock()
	var again []*answerChange
	for _, c := range changes {
		if c.held = held[c]; c.held != "" && !c.withdrawn {
			again = append(again, c)
			continue
		}
		c.at, c.err = at, err
		close(c.done)
	}
	g.queue = append(again, g.queue...)
}

// worthwhile reports whether anything is to be tried now.
func (g *answers) worthwhile() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue) > 0 && (g.fresh || time.Since(g.tried) >= holdRetry)
}

// replace applies changes to what stands on the bus, and returns what has to wait, with
// the reason, and where the entry stands that has the rest.
func (g *answers) replace(ctx context.Context, changes []*answerChange) (held map[*answerChange]string, at bus.Position, err error) {
	for {
		list, signed, after, err := g.standing(ctx)
		if err != nil {
			return nil, at, err
		}
		next, held, changed := apply(list, changes, time.Now())
		if !changed {
			return held, after, nil
		}
		at, err := g.m.succeed(ctx, after, signed, &event.Challenges{Group: g.group, List: next})
		if conflict(err) {
			continue
		}
		if err != nil {
			return nil, at, fmt.Errorf("telling the replicas of group %q what to answer: %w", g.group, err)
		}
		return held, at, nil
	}
}

// standing returns what the group answers by now, and when that was signed. An entry that no manager signed, or
// none that is trusted still, counts for nothing, as it does for replicas.
func (g *answers) standing(ctx context.Context) ([]event.Challenge, time.Time, bus.Position, error) {
	key := event.ChallengesKey(g.group)
	entry, err := g.m.log.Get(ctx, key)
	if isNotFound(err) {
		return nil, time.Time{}, bus.Position{}, nil
	}
	if err != nil {
		return nil, time.Time{}, bus.Position{}, &busError{fmt.Errorf("reading what group %q answers: %w", g.group, err)}
	}
	e, err := g.m.open(ctx, key, entry.Data)
	if err == nil {
		if body, ok := e.Body.(*event.Challenges); ok {
			return body.List, e.Time, entry.Position, nil
		}
		err = event.ErrUnsupported
	}
	var gone *busError
	if errors.As(err, &gone) {
		return nil, time.Time{}, bus.Position{}, err
	}
	g.m.logger.Warn("what stands on the bus for a group to answer is not to be believed, and is replaced", "group", g.group, "error", err)
	return nil, time.Time{}, entry.Position, nil
}

// apply returns a list with changes in their order, and without what has expired: which
// additions have to wait, and why, and whether it differs by any of the changes.
func apply(list []event.Challenge, changes []*answerChange, now time.Time) (next []event.Challenge, held map[*answerChange]string, changed bool) {
	held = make(map[*answerChange]string)
	size := 0
	for _, c := range list {
		if c.Expires.After(now) {
			next = append(next, c)
			size += sizeOf(c)
		}
	}
	for _, c := range changes {
		key := keyOfAnswer(c.Challenge)
		i := slices.IndexFunc(next, func(old event.Challenge) bool { return keyOfAnswer(old) == key })
		switch {
		case c.remove && i < 0:
		case c.remove:
			size -= sizeOf(next[i])
			next, changed = slices.Delete(next, i, i+1), true
		case i >= 0 && next[i].Authorization == c.Authorization && !next[i].Expires.Before(c.Expires):
		case i >= 0:
			size += sizeOf(c.Challenge) - sizeOf(next[i])
			next[i], changed = c.Challenge, true
		case contradicts(next, c.Challenge):
			held[c] = fmt.Sprintf("another order's %s challenge for %s is being answered, and a name has one answer at a time", c.Type, c.Name)
		case len(next) >= event.MaxChallenges || size+sizeOf(c.Challenge) > maxAnswers:
			held[c] = fmt.Sprintf("the replicas answer %d challenges, and can answer no more at once", len(next))
		default:
			size += sizeOf(c.Challenge)
			next, changed = append(next, c.Challenge), true
		}
	}
	return next, held, changed
}

// contradicts reports whether a name would have two answers: by TLS it can show one.
func contradicts(list []event.Challenge, c event.Challenge) bool {
	return c.Type == event.ChallengeTLSALPN01 && slices.ContainsFunc(list, func(old event.Challenge) bool {
		return old.Type == c.Type && old.Name == c.Name
	})
}

func sizeOf(c event.Challenge) int {
	return len(c.Type) + len(c.Name) + len(c.Token) + len(c.Authorization) + perAnswer
}
