// SPDX-License-Identifier: Apache-2.0

// Package membus is the bus in memory: the reference for the contract of
// [bus.Log], for tests and for programs whose manager and replica share one
// process. It survives nothing.
package membus

import (
	"bytes"
	"context"
	"crypto/rand"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/bus"
)

// A Log is a bus in memory. Make it with New.
type Log struct {
	id    string
	board *Log // nil in a board

	mu      sync.Mutex
	seq     uint64               // guarded by mu
	newest  map[string]bus.Entry // guarded by mu
	changed chan struct{}        // guarded by mu; closed and replaced by every append
}

var _ bus.Boarder = (*Log)(nil)

// New returns an empty log with an identity of its own.
func New() *Log {
	l := empty()
	l.board = empty()
	return l
}

func empty() *Log {
	return &Log{id: rand.Text(), newest: make(map[string]bus.Entry), changed: make(chan struct{})}
}

// Get implements bus.Log.
func (l *Log) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	if err := ctx.Err(); err != nil {
		return bus.Entry{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.newest[key]
	if !ok {
		return bus.Entry{}, bus.ErrNotFound
	}
	return own(e), nil
}

// Append implements bus.Log.
func (l *Log) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if err := bus.CheckAppend(key, data); err != nil {
		return bus.Position{}, err
	}
	if err := ctx.Err(); err != nil {
		return bus.Position{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.newest[key]
	if ok && bytes.Equal(e.Data, data) {
		return e.Position, nil
	}
	if e.Position != after {
		return bus.Position{}, &bus.ConflictError{Key: key, After: after, Newest: e.Position}
	}
	return l.put(key, data), nil
}

// put is called with mu held.
func (l *Log) put(key string, data []byte) bus.Position {
	l.seq++
	at := bus.Position{Log: l.id, Seq: l.seq}
	l.newest[key] = bus.Entry{Key: key, Data: bytes.Clone(data), Position: at}
	close(l.changed)
	l.changed = make(chan struct{})
	return at
}

// Follow implements bus.Log.
func (l *Log) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		if err := bus.CheckKey(scope); err != nil {
			yield(bus.Update{}, err)
			return
		}
		at, caughtUp := from, false
		for {
			if err := ctx.Err(); err != nil {
				yield(bus.Update{}, err)
				return
			}
			entries, head, changed, err := l.after(scope, at)
			if err != nil {
				yield(bus.Update{}, err)
				return
			}
			for _, e := range entries {
				if !yield(bus.Update{Entry: e}, nil) {
					return
				}
			}
			at = head
			if !caughtUp {
				caughtUp = true
				if !yield(bus.Update{Entry: bus.Entry{Position: head}, CaughtUp: true}, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// after returns the scope's entries after from, the head, and a channel that is
// closed by the next append.
func (l *Log) after(scope string, from bus.Position) ([]bus.Entry, bus.Position, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !from.IsZero() && (from.Log != l.id || from.Seq > l.seq) {
		return nil, bus.Position{}, nil, bus.ErrPosition
	}
	var entries []bus.Entry
	for key, e := range maps.All(l.newest) {
		if e.Position.Seq > from.Seq && bus.InScope(key, scope) {
			entries = append(entries, own(e))
		}
	}
	slices.SortFunc(entries, func(a, b bus.Entry) int {
		return int(int64(a.Position.Seq) - int64(b.Position.Seq))
	})
	return entries, bus.Position{Log: l.id, Seq: l.seq}, l.changed, nil
}

func own(e bus.Entry) bus.Entry {
	e.Data = bytes.Clone(e.Data)
	return e
}
