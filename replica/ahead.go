// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"iter"
	"sync"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// maxAhead is how many entries are opened ahead of their turn. It bounds the memory
// for them: each has at most bus.MaxData bytes.
const maxAhead = 128

// An update is one of the bus, and what was made of it before its turn.
type update struct {
	bus.Update
	opened *opened // nil unless the follower opens ahead
}

// An opened says what event.Open made of an entry.
type opened struct {
	event *event.Event
	err   error
	by    *[]*seal.VerifyKey // who was trusted
}

// open verifies and decodes an entry. It needs no lock: the managers may be others
// when it returns.
func (r *Replica) open(entry bus.Entry) *opened {
	by := r.managers.Load()
	e, err := event.Open(*by, r.tenant, entry.Key, entry.Data)
	return &opened{e, err, by}
}

// A waiting is an update whose turn has not come.
type waiting struct {
	update
	err  error
	done chan struct{} // closed when it is opened
}

// ahead yields what updates yields, in its order, while those that come next are
// opened on all cores. What came before an error is yielded before it, unless ctx has
// ended. stop ends ctx.
func ahead(ctx context.Context, stop context.CancelFunc, updates iter.Seq2[bus.Update, error], open func(bus.Entry) *opened) iter.Seq2[update, error] {
	return func(yield func(update, error) bool) {
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		queue := make(chan *waiting, maxAhead)
		running.Go(func() {
			defer close(queue)
			for u, err := range updates {
				w := &waiting{update: update{Update: u}, err: err, done: make(chan struct{})}
				select {
				case queue <- w:
				case <-ctx.Done():
					return
				}
				if err != nil || u.CaughtUp {
					close(w.done)
					continue
				}
				running.Go(func() {
					defer close(w.done)
					w.opened = open(u.Entry)
				})
			}
		})
		for w := range queue {
			<-w.done
			if ctx.Err() != nil || !yield(w.update, w.err) {
				return
			}
		}
	}
}

// plain yields what updates yields.
func plain(updates iter.Seq2[bus.Update, error]) iter.Seq2[update, error] {
	return func(yield func(update, error) bool) {
		for u, err := range updates {
			if !yield(update{Update: u}, err) {
				return
			}
		}
	}
}
