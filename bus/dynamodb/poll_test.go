// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestInterval(t *testing.T) {
	for _, c := range []struct{ idle, shortest, want time.Duration }{
		{0, minPoll, 200 * time.Millisecond},
		{800 * time.Millisecond, minPoll, 200 * time.Millisecond},
		{4 * time.Second, minPoll, time.Second},
		{20 * time.Second, minPoll, 5 * time.Second},
		{1000 * time.Hour, minPoll, 5 * time.Second},
		{-time.Hour, minPoll, 200 * time.Millisecond}, // the clock was set back
		{0, minBoardPoll, time.Second},
		{1000 * time.Hour, minBoardPoll, 5 * time.Second},
	} {
		if got := interval(c.idle, c.shortest); got != c.want {
			t.Errorf("interval(%v, %v) is %v, want %v", c.idle, c.shortest, got, c.want)
		}
	}
}

// TestPollerAdapts counts the looks of a follower in the first minute after a
// change and in a quiet one: the numbers that the costs in the docs rest on.
func TestPollerAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := poller{shortest: minPoll, changed: time.Now()}
		looks := func() (n int) {
			for end := time.Now().Add(time.Minute); time.Now().Before(end); n++ {
				if err := p.wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		if n := looks(); n < 24 || n > 32 {
			t.Errorf("%d looks in the minute after a change", n)
		}
		if n := looks(); n < 12 || n > 15 {
			t.Errorf("%d looks in a quiet minute", n)
		}
	})
}

func TestPollerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errClosed)
	p := poller{shortest: minPoll}
	if err := p.wait(ctx); !errors.Is(err, errClosed) {
		t.Errorf("ended with %v", err)
	}
}
