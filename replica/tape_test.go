// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
)

// A tape is a bus that can go back, as a disk does that lost its last writes or
// was restored: it goes on under the same name, and gives the same numbers out
// again.
type tape struct {
	board bus.Board

	mu      sync.Mutex
	entries []bus.Entry // the position of each is its index and one
	hidden  string      // a key of which followers are told nothing
	changed chan struct{}
}

func newTape() *tape { return &tape{board: membus.New().Board(), changed: make(chan struct{})} }

func (l *tape) Board() bus.Board { return l.board }

// back takes the last n entries away.
func (l *tape) back(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = slices.Clone(l.entries[:len(l.entries)-n])
}

// hide tells followers nothing of a key, "" everything from then on.
func (l *tape) hide(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hidden = key
}

func (l *tape) newest(key string) (bus.Entry, bool) {
	for _, e := range slices.Backward(l.entries) {
		if e.Key == key {
			e.Data = bytes.Clone(e.Data)
			return e, true
		}
	}
	return bus.Entry{}, false
}

func (l *tape) head() bus.Position { return bus.Position{Log: "tape", Seq: uint64(len(l.entries))} }

func (l *tape) Get(_ context.Context, key string) (bus.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.newest(key); ok {
		return e, nil
	}
	return bus.Entry{}, bus.ErrNotFound
}

// Append replaces whatever there is: the tests have one writer.
func (l *tape) Append(_ context.Context, key string, _ bus.Position, data []byte) (bus.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := bus.Position{Log: "tape", Seq: uint64(len(l.entries)) + 1}
	l.entries = append(l.entries, bus.Entry{Key: key, Data: bytes.Clone(data), Position: at})
	close(l.changed)
	l.changed = make(chan struct{})
	return at, nil
}

func (l *tape) after(scope string, at bus.Position) (found []bus.Entry, head bus.Position, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[string]bool)
	for _, e := range slices.Backward(l.entries) {
		if e.Position.Seq > at.Seq && bus.InScope(e.Key, scope) && !seen[e.Key] && e.Key != l.hidden {
			seen[e.Key] = true
			e.Data = bytes.Clone(e.Data)
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b bus.Entry) int { return cmp.Compare(a.Position.Seq, b.Position.Seq) })
	return found, l.head(), l.changed
}

func (l *tape) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		at, caughtUp := from, false
		for ctx.Err() == nil {
			entries, head, changed := l.after(scope, at)
			if !caughtUp && from.Seq > head.Seq {
				yield(bus.Update{}, bus.ErrPosition)
				return
			}
			for _, e := range entries {
				if !yield(bus.Update{Entry: e}, nil) {
					return
				}
			}
			if head.Seq > at.Seq || !caughtUp {
				at = head
			}
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
		yield(bus.Update{}, ctx.Err())
	}
}
