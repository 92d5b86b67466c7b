// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus/jetstream/embedded"
)

// TestUntilAnswered: the embedded bus, which a whole fleet may come back to at once, is
// asked again while it does not answer in time, for two minutes; one elsewhere is not.
func TestUntilAnswered(t *testing.T) {
	late, other := fmt.Errorf("reading: %w", context.DeadlineExceeded), errors.New("something else")
	for what, c := range map[string]struct {
		embedded bool
		answers  []error // the last one again and again
		want     error
		asked    int
		took     time.Duration
	}{
		"at once":             {true, []error{nil}, nil, 1, 0},
		"the third time":      {true, []error{late, late, nil}, nil, 3, 10*time.Second + 200*time.Millisecond},
		"something else":      {true, []error{late, other}, other, 2, 5*time.Second + 100*time.Millisecond},
		"never":               {true, []error{late}, context.DeadlineExceeded, 24, letInTimeout},
		"elsewhere":           {false, []error{late}, context.DeadlineExceeded, 1, 5 * time.Second},
		"elsewhere, in time":  {false, []error{nil}, nil, 1, 0},
		"elsewhere, or else…": {false, []error{other}, other, 1, 0},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &instance{logger: slog.New(slog.DiscardHandler)}
				if c.embedded {
					in.embedded = new(embedded.Server)
				}
				asked, start := 0, time.Now()
				err := in.untilAnswered(t.Context(), func(ctx context.Context) error {
					err := c.answers[min(asked, len(c.answers)-1)]
					asked++
					if errors.Is(err, context.DeadlineExceeded) {
						select {
						case <-ctx.Done():
						case <-time.After(5 * time.Second):
						}
					}
					return err
				})
				if took := time.Since(start); !errors.Is(err, c.want) || asked != c.asked || took != c.took {
					t.Errorf("asked %d times in %v: %v", asked, took, err)
				}
			})
		})
	}
}
