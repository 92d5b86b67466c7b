// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// Mark makes the next generation of a managed certificate due at once, whatever
// is left of its lifetime: whoever runs renews it next, and the history has the
// mark's reason, one of event's. A back-off that is under way ends; if the
// attempt fails, a new one begins.
//
// A generation that is being made meanwhile is not published: it may rest on
// what the mark is about, such as the group's former key. Marking what is
// marked already changes nothing, unless an attempt failed since, whose back-off
// ends, or the reason is event.ReasonCompromised and the mark's is not: that
// reason stays.
//
// The error may be a *NotFoundError or a *RemovedError.
func (m *Manager) Mark(ctx context.Context, id, reason string) error {
	for {
		c, err := m.Get(ctx, id)
		if err != nil {
			return err
		}
		err = m.mark(ctx, c, reason)
		if !conflict(err) {
			return err
		}
	}
}

// MarkGroup marks every managed certificate of a group that is not removed, and
// returns how many are marked. One that cannot be does not keep the others from
// it.
func (m *Manager) MarkGroup(ctx context.Context, group, reason string) (n int, err error) {
	list, err := m.List(ctx)
	bad := []error{err}
	for _, c := range list {
		if c.Spec.Group != group {
			continue
		}
		err := m.Mark(ctx, c.ID, reason)
		var removed *RemovedError
		switch {
		case err == nil:
			n++
		case !errors.As(err, &removed): // since it was listed
			bad = append(bad, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return n, errors.Join(bad...)
}

// mark appends the mark to the state as it is known. The error may be a
// conflict.
func (m *Manager) mark(ctx context.Context, c *Managed, reason string) error {
	if c.Removed {
		return &RemovedError{c.ID}
	}
	if c.Mark != nil && reason != event.ReasonCompromised {
		reason = c.Mark.Reason
	}
	if c.Mark != nil && c.Mark.Reason == reason && c.Failure == nil {
		return nil
	}
	next := c.State
	next.Mark, next.Failure = &event.Mark{Reason: reason, At: time.Now()}, nil
	next.Order = nil // its key may be what the mark is about
	if _, err := m.append(ctx, c.Position, &next); err != nil {
		return fmt.Errorf("marking %s: %w", c.ID, err)
	}
	crash.Point(crash.Marked)
	m.logger.Info("certificate is marked for renewal", "managed_id", c.ID, "names", c.Spec.Names, "reason", reason)
	return nil
}

// sameMark reports whether nobody has marked b since it was a.
func sameMark(a, b *Managed) bool {
	if a.Mark == nil || b.Mark == nil {
		return a.Mark == b.Mark
	}
	return a.Mark.Reason == b.Mark.Reason && a.Mark.At.Equal(b.Mark.At)
}

// why returns the reason for the next generation of c: the mark's, which is why
// it is due, unless the caller knows of worse.
func (c *Managed) why(reason string) string {
	if c.Mark == nil || c.Generation == 0 || reason == event.ReasonCompromised {
		return reason
	}
	return c.Mark.Reason
}
