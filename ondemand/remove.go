// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"time"
)

// remove drops a name. Whoever asks for it meanwhile waits.
func (s *Source) remove(ctx context.Context, name string) error {
	e, f, err := s.occupy(ctx, name)
	if err != nil || e == nil {
		return err
	}
	if s.Cache != nil {
		ctx, cancel := s.forCache(ctx)
		defer cancel()
		err = s.Cache.Delete(ctx, e.name)
	}
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e.flight = nil
	e.failures, e.err, e.blocked = 0, nil, time.Time{}
	t.dropLocked(e)
	close(f.done)
	close(f.landed)
	return err
}

// occupy waits until nothing is under way for a name, and makes a removal so.
func (s *Source) occupy(ctx context.Context, name string) (*entry, *flight, error) {
	t := &s.table
	for {
		t.mu.Lock()
		e := t.find(name)
		if e != nil && e.flight != nil {
			f := e.flight
			t.mu.Unlock()
			select {
			case <-f.landed:
				continue
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
		defer t.mu.Unlock()
		if e == nil && s.Cache == nil {
			return nil, nil, nil
		}
		if e == nil {
			var err error
			if e, err = t.addLocked(name, time.Now()); err != nil {
				return nil, nil, err
			}
		}
		f := newFlight(e)
		f.removal = true
		e.flight = f
		e.live.Store(nil)
		e.stopLocked()
		return e, f, nil
	}
}
