// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

func poller() *CA {
	return &CA{config: Config{Name: "ca", Poll: Adaptive}, patience: patience}
}

// TestPollIsInTime looks, for waits of every length, that the end is seen by an
// eighth too late at most, with few looks.
func TestPollIsInTime(t *testing.T) {
	for _, ready := range []time.Duration{0, 3 * time.Millisecond, 40 * time.Millisecond, time.Second, 10 * time.Second, 4 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			began, looks := time.Now(), 0
			if err := poller().poll(t.Context(), "it", func(context.Context) (bool, time.Duration, error) {
				looks++
				return time.Since(began) >= ready, 0, nil
			}); err != nil {
				t.Fatal(err)
			}
			late := time.Since(began) - ready
			if late > max(ready/8, firstPoll) || late > maxPoll || looks > 120 {
				t.Errorf("ready after %s, seen %s later, with %d looks", ready, late, looks)
			}
		})
	}
}

// TestPollObeys waits as long as the CA says, up to a minute.
func TestPollObeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		began := time.Now()
		err := poller().poll(t.Context(), "it", func(context.Context) (bool, time.Duration, error) {
			looks++
			return looks == 4, 20 * time.Second, nil
		})
		if waited := time.Since(began); err != nil || waited != 3*20*time.Second+firstPoll {
			t.Errorf("%s, %v", waited, err)
		}
		began = time.Now()
		err = poller().poll(t.Context(), "it", func(context.Context) (bool, time.Duration, error) { return false, time.Hour, nil })
		at, hinted := issuer.RetryAfter(err)
		if !hinted || time.Until(at) != time.Hour || time.Since(began) != firstPoll {
			t.Errorf("%v: %s", err, at)
		}
	})
}

// TestPollEnds by patience, by the context, and by an error.
func TestPollEnds(t *testing.T) {
	never := func(context.Context) (bool, time.Duration, error) { return false, 0, nil }
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := poller().poll(t.Context(), "it", never)
		if _, hinted := issuer.RetryAfter(err); err == nil || hinted || time.Since(began) > patience+maxPoll {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := poller().poll(ctx, "it", never); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		broken := errors.New("broken")
		if err := poller().poll(t.Context(), "it", func(context.Context) (bool, time.Duration, error) { return false, 0, broken }); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

// TestInTurn has many wait for what hangs and fails: they have its error together. Who
// comes later asks anew.
func TestInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := &CA{turn: make(chan struct{}, 1)}
		asked, down := 0, errors.New("down")
		ask := func() error {
			asked++
			time.Sleep(30 * time.Second)
			return down
		}
		began := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := ca.inTurn(t.Context(), ask); !errors.Is(err, down) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := ca.inTurn(impatient, ask); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wg.Wait()
		if took := time.Since(began); asked != 1 || took != 30*time.Second {
			t.Errorf("asked %d times, for %s", asked, took)
		}
		time.Sleep(time.Second)
		if err := ca.inTurn(t.Context(), func() error { return nil }); err != nil {
			t.Error(err)
		}
	})
}
