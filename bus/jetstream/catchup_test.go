// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// TestCatchUpEnds has followers begin while a few keys are written again and
// again, and then no more. The server's count of what waits stays above zero for
// some of them, and each is to be told nevertheless that it has all.
func TestCatchUpEnds(t *testing.T) {
	const rounds, followers, keys = 150, 6, 4
	l := startPlain(t).open(t)
	var at [keys]bus.Position
	for round := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var work sync.WaitGroup
		work.Go(func() {
			for i := range 1 + rand.IntN(6) {
				k := rand.IntN(keys)
				p, err := l.Append(ctx, fmt.Sprint("state/", k), at[k], fmt.Append(nil, round, i))
				if err != nil {
					t.Error(err)
					return
				}
				at[k] = p
			}
		})
		for range followers {
			work.Go(func() {
				if err := toTheEnd(ctx, l); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		work.Wait()
		cancel()
		if t.Failed() {
			return
		}
	}
}

// toTheEnd follows until all that there was has come.
func toTheEnd(ctx context.Context, l bus.Log) error {
	for u, err := range l.Follow(ctx, "state", bus.Position{}) {
		if err != nil || u.CaughtUp {
			return err
		}
	}
	return ctx.Err()
}
