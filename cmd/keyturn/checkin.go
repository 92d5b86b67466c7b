// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/checkin"
)

// newCheckIn returns nil where there is no URL.
func newCheckIn(url, ttl string) (*checkin.CheckIn, time.Duration, error) {
	if url == "" {
		return nil, 0, nil
	}
	d, err := config.ParseDuration(ttl)
	if err != nil {
		return nil, 0, usagef("--check-in-ttl: %w", err)
	}
	c, err := checkin.New(url, time.Duration(d), nil)
	if err != nil {
		return nil, 0, usagef("--check-in: %w", err)
	}
	return c, time.Duration(d), nil
}

// passCheckIn is the dead-man's switch of a command that a timer starts.
func passCheckIn(cmd *cobra.Command) (*checkin.CheckIn, error) {
	ttl := setting(cmd, "check-in-ttl")
	if ttl == "" {
		every, err := timer(cmd)
		if err != nil {
			return nil, err
		}
		ttl = config.Duration(3 * every).String()
	}
	c, _, err := newCheckIn(setting(cmd, "check-in"), ttl)
	return c, err
}

// checkIn reports a pass. That nobody hears of it fails nothing.
func checkIn(ctx context.Context, cmd *cobra.Command, c *checkin.CheckIn, r checkin.Result) {
	if c == nil {
		return
	}
	if err := c.Report(context.WithoutCancel(ctx), r); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the pass is done, and could not be reported: %v\n", err)
	}
}

// startCheckIn reports three times in a time-to-live that the manager goes over
// what is due, and whether that can be done.
func (in *instance) startCheckIn() error {
	c, ttl, err := newCheckIn(in.config.CheckIn.URL, in.config.CheckIn.TTL)
	if c == nil || err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(ttl / 3)
		defer tick.Stop()
		for ctx.Err() == nil {
			if err := c.Report(ctx, in.pass(ttl)); err != nil && ctx.Err() == nil {
				in.logger.Warn("the manager could not check in", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	in.onStop(func() error {
		cancel()
		<-done
		return nil
	})
	return nil
}

// pass is how the manager is: good while it looks at what is due, reaches the
// bus, and no certificate's last attempt failed.
func (in *instance) pass(ttl time.Duration) checkin.Result {
	r := checkin.Result{Passed: in.manager.Stats().LastPass}
	r.Due, r.Failed, r.Next = in.status.Due(time.Now())
	r.OK = in.log.Check() == nil && time.Since(r.Passed) < ttl && r.Failed == 0
	return r
}
