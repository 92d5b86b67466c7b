// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
)

// durabilityTimeout bounds reading durability back, and durabilityEvery is how often
// a manager does.
const (
	durabilityTimeout = 10 * time.Second
	durabilityEvery   = time.Minute
)

// readDurability asks the bus how it keeps entries.
func readDurability(ctx context.Context, conn bus.Conn) (*bus.Durability, error) {
	asked, ok := conn.(bus.Durable)
	if !ok {
		return nil, fmt.Errorf("this bus does not say how it keeps entries")
	}
	ctx, cancel := context.WithTimeout(ctx, durabilityTimeout)
	defer cancel()
	return asked.Durability(ctx)
}

// noteReduced says what of durability falls short of what is promised.
func noteReduced(cmd *cobra.Command, d *bus.Durability) {
	for _, r := range d.Reduced {
		fmt.Fprintf(cmd.ErrOrStderr(), "WARNING: %s\n", r)
	}
}

// watchDurability keeps the metrics about the bus, and logs what changes.
func (in *instance) watchDurability() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(durabilityEvery)
		defer tick.Stop()
		said := make(map[string]bool)
		for {
			if d, err := readDurability(ctx, in.log); err == nil {
				in.status.Bus(d)
				said = in.sayReduced(said, d)
			} else if ctx.Err() == nil {
				in.logger.Debug("how the bus keeps entries could not be read", "error", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	in.onStop(func() error {
		cancel()
		wg.Wait()
		return nil
	})
}

// sayReduced logs each reason once, and that there is none any more.
func (in *instance) sayReduced(said map[string]bool, d *bus.Durability) map[string]bool {
	now := make(map[string]bool)
	for _, r := range d.Reduced {
		now[r.Why] = true
		if !said[r.Why] {
			in.logger.Warn("reduced durability", "reason", r.Reason, "why", r.Why, "do", r.Do)
		}
	}
	if len(said) > 0 && len(now) == 0 {
		in.logger.Info("the bus keeps entries as it should")
	}
	return now
}
