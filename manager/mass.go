// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/plural"
)

// MarkIssuer marks every certificate whose newest generation is an issuer's, or
// that has none yet and asks that issuer first, and returns the ids of those that
// are marked. Whoever runs makes them anew, those that end soonest first; so does
// a pass of RenewDue that is given the ids, where nobody runs. One that cannot be
// marked does not keep the others from it. The reason is one of event's.
func (m *Manager) MarkIssuer(ctx context.Context, issuer, reason string) (ids []string, err error) {
	list, err := m.List(ctx)
	bad := []error{err}
	for _, c := range list {
		by := c.issuedBy()
		if c.Certificate == nil {
			by = c.Spec.Issuer
		}
		if by != issuer {
			continue
		}
		err := m.Mark(ctx, c.ID, reason)
		var removed *RemovedError
		switch {
		case err == nil:
			ids = append(ids, c.ID)
		case !errors.As(err, &removed): // since it was listed
			bad = append(bad, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return ids, errors.Join(bad...)
}

// WatchMarked returns when none of the certificates is marked any more: when
// whoever runs has made each of them anew, or it was removed. progress, if not
// nil, is told how many are done, and how many of the others failed at the last
// attempt, at the start and whenever that changes; it must not wait. What failed
// is tried again, so WatchMarked waits on: ctx bounds it.
func (m *Manager) WatchMarked(ctx context.Context, ids []string, progress func(done, failed, of int)) error {
	open := make(map[string]bool, len(ids)) // whether it failed
	for _, id := range ids {
		open[id] = false
	}
	total, done, failed := len(open), -1, 0
	tell := func() {
		n := 0
		for _, bad := range open {
			if bad {
				n++
			}
		}
		if progress != nil && (total-len(open) != done || n != failed) {
			progress(total-len(open), n, total)
		}
		done, failed = total-len(open), n
	}
	var at bus.Position
	caught := false
	for {
		for u, err := range m.log.Follow(ctx, event.StateScope, at) {
			if errors.Is(err, bus.ErrPosition) {
				at = bus.Position{}
			}
			if err != nil {
				break
			}
			at, caught = u.Position, caught || u.CaughtUp
			if !u.CaughtUp {
				c, err := m.decode(ctx, u.Entry)
				if _, wanted := open[path.Base(u.Key)]; err != nil || !wanted {
					continue
				}
				if c.Removed || c.Mark == nil {
					delete(open, c.ID)
				} else {
					open[c.ID] = c.Failure != nil
				}
			}
			if !caught {
				continue
			}
			if tell(); len(open) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %s made anew: %w", total-len(open), plural.Of(total, "certificate"), ctx.Err())
		case <-time.After(refollow):
		}
	}
}
