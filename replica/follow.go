// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// A backoff is the wait between attempts. The zero value starts at firstWait.
type backoff struct{ next time.Duration }

// wait waits and reports whether ctx goes on.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(b.next, firstWait), lastWait)
	if !sleep(ctx, b.next/2+rand.N(b.next)) {
		return false
	}
	b.next *= 2
	return true
}

// sleep reports whether ctx went on meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// A source is what can be followed: a log, or a board.
type source interface {
	Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error]
}

// A follower follows one scope for as long as the replica is open.
type follower struct {
	source source
	scope  string
	// from returns where to go on; restart makes that the start, after the
	// source said that it does not know the place.
	from    func() bus.Position
	restart func()
	// open, if not nil, opens entries before they are taken, several at once.
	open func(bus.Entry) *opened
	// take takes an update. After an error the same comes again.
	take func(update) error
	// lost is told why the scope is not followed, before the next attempt.
	lost func(error)
	// rest, if not nil, says how long to wait at least before the next attempt.
	rest func() time.Duration

	mu   sync.Mutex
	stop context.CancelFunc // guarded by mu; ends the attempt under way
	anew bool               // guarded by mu; the next attempt begins at once
}

// again ends the attempt under way. The next begins at once, where from says.
func (f *follower) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.anew = true
	if f.stop != nil {
		f.stop()
	}
}

// begin begins an attempt.
func (f *follower) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop, f.anew = stop, false
	return ctx, stop
}

// interrupted reports whether again was called since the attempt began.
func (f *follower) interrupted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.anew
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	var retry backoff
	for {
		progress, err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if progress {
			retry = backoff{}
		}
		if f.interrupted() {
			continue
		}
		f.lost(err)
		if f.rest != nil && !sleep(ctx, f.rest()) || !retry.wait(ctx) {
			return
		}
	}
}

// follow takes updates until the source fails and reports whether there was any.
func (f *follower) follow(ctx context.Context) (progress bool, err error) {
	ctx, stop := f.begin(ctx)
	defer stop()
	updates := f.source.Follow(ctx, f.scope, f.from())
	turns := plain(updates)
	if f.open != nil {
		turns = ahead(ctx, stop, updates, f.open)
	}
	for u, err := range turns {
		if errors.Is(err, bus.ErrPosition) {
			f.restart()
		}
		if err == nil {
			err = checkPosition(u.Position)
		}
		if err == nil {
			err = f.take(u)
		}
		if err != nil {
			return progress, err
		}
		progress = true
	}
	return progress, errors.New("the bus ended the stream")
}
