// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// refollow is the wait before the bus is followed again.
const refollow = time.Second

// A source is a scope of the log or of the board, and what takes its updates.
type source struct {
	from interface {
		Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error]
	}
	scope string
	take  func(bus.Update)
	// lost, if not nil, is called before everything is taken again from the start,
	// because the log was replaced or went back.
	lost func()
	// ended, if not nil, is called whenever updates stop coming.
	ended func()
}

// with is take within ctx.
func with(ctx context.Context, take func(context.Context, bus.Update)) func(bus.Update) {
	return func(u bus.Update) { take(ctx, u) }
}

// follow hands every update of a source to what takes them until ctx ends.
func (m *Manager) follow(ctx context.Context, s source) {
	var at bus.Position
	var last string
	for ctx.Err() == nil {
		for u, err := range s.from.Follow(ctx, s.scope, at) {
			if errors.Is(err, bus.ErrPosition) {
				at = bus.Position{}
				if s.lost != nil {
					s.lost()
				}
			}
			if err != nil {
				if ctx.Err() == nil && err.Error() != last {
					last = err.Error()
					m.logger.Warn("the bus is not being followed; trying on", "scope", s.scope, "error", err)
				}
				break
			}
			at, last = u.Position, ""
			s.take(u)
		}
		if s.ended != nil {
			s.ended()
		}
		select {
		case <-ctx.Done():
		case <-time.After(refollow):
		}
	}
}

// readLog is read of a scope of the log, from its start.
func (m *Manager) readLog(ctx context.Context, scope string, take func(bus.Update)) error {
	_, err := m.read(ctx, source{from: m.log, scope: scope, take: take}, bus.Position{})
	return err
}

// read hands what is there of a source after from, and its caught-up mark, to
// what takes it, and returns the place reached.
func (m *Manager) read(ctx context.Context, s source, from bus.Position) (bus.Position, error) {
	for u, err := range s.from.Follow(ctx, s.scope, from) {
		if err != nil {
			return from, err
		}
		s.take(u)
		if u.CaughtUp {
			return u.Position, nil
		}
	}
	return from, errors.New("the bus ended the stream")
}
