// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// Bounds of the time between two looks of a follower: at the log, and at the
// board, where news are less urgent and come all the time.
const (
	minPoll      = 200 * time.Millisecond
	minBoardPoll = time.Second
	maxPoll      = 5 * time.Second
)

// interval is how long a follower waits before it looks again, when the last
// change is idle ago: a quarter of that, from shortest to maxPoll. News come in
// bursts: after one the next is seen soon, and a quiet log costs little.
func interval(idle, shortest time.Duration) time.Duration {
	return min(max(idle/4, shortest), maxPoll)
}

// errStopped says that the caller has enough.
var errStopped = errors.New("stopped")

// stream is what Follow returns of a follower: it ends with the caller, with
// ctx, with Close, or with why run ended.
func (l *Log) stream(ctx context.Context, scope string, run func(context.Context, func(bus.Update) bool) error) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		bound, end := l.bind(ctx)
		defer end()
		err := bus.CheckKey(scope)
		if err == nil {
			err = run(bound, func(u bus.Update) bool { return yield(u, nil) })
		}
		switch {
		case errors.Is(err, errStopped):
		case ctx.Err() != nil:
			yield(bus.Update{}, ctx.Err())
		default:
			yield(bus.Update{}, fmt.Errorf("bus: following %s: %w", scope, err))
		}
	}
}

// poll looks until that fails, and marks the end of the first look.
func poll(ctx context.Context, shortest time.Duration, look func(ctx context.Context, first bool) (changed bool, err error), mark func() bool) error {
	p := poller{shortest: shortest, changed: time.Now()}
	for first := true; ; first = false {
		changed, err := look(ctx, first)
		if err != nil {
			return err
		}
		if changed {
			p.changed = time.Now()
		}
		if first && !mark() {
			return errStopped
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// A poller waits between the looks of one follower.
type poller struct {
	shortest time.Duration
	changed  time.Time // when there was something new
}

// wait returns when it is time to look again, or the cause of ctx's end. Up to a
// fifth of the time is left out at random, so that replicas that started
// together do not ask together.
func (p *poller) wait(ctx context.Context) error {
	d := interval(time.Since(p.changed), p.shortest)
	return sleep(ctx, d-rand.N(d/5))
}

// Bounds of the random time that is waited before something is tried again,
// doubled with every time. A transaction takes 10 to 20 ms.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second
)

// A backoff waits before something is tried again. The zero one is ready.
type backoff struct{ last time.Duration }

// wait waits a random time, or returns the cause of ctx's end.
func (b *backoff) wait(ctx context.Context) error {
	b.last = min(max(2*b.last, minBackoff), maxBackoff)
	return sleep(ctx, rand.N(b.last))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
