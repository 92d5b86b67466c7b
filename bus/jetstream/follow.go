// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn/bus"
)

// heartbeat is how often the server says that it is still there; after three
// silent ones Follow ends.
const heartbeat = 5 * time.Second

// Errors with which Follow ends when the flow of messages broke.
var (
	errSilent       = errors.New("the server went silent")
	errGap          = errors.New("a message is missing")
	errDisconnected = errors.New("the connection was lost")
)

// errStopped means that whoever follows wants no more.
var errStopped = errors.New("stopped")

// Follow is a Log's and a Board's. It does not repair a broken flow: it ends, and
// whoever follows again looks first whether it is still the same stream.
func (s *stream) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		err := s.follow(ctx, scope, from, func(u bus.Update) bool { return yield(u, nil) })
		switch {
		case errors.Is(err, errStopped):
		case ctx.Err() != nil:
			yield(bus.Update{}, ctx.Err())
		default:
			s.answered(err)
			s.forget() // it may be another stream by now
			yield(bus.Update{}, err)
		}
	}
}

func (s *stream) follow(ctx context.Context, scope string, from bus.Position, yield func(bus.Update) bool) error {
	if err := bus.CheckKey(scope); err != nil {
		return err
	}
	s.awaitConnection(ctx)
	// Watched from before the first question, so that no break goes unseen.
	ctx, stop := s.whileConnected(ctx)
	defer stop()
	reconnects := s.nc.Stats().Reconnects
	told, err := s.told(ctx)
	if err != nil {
		return err
	}
	c := s.consumer(scope)
	ctx, release := c.claim(ctx)
	defer release()
	f := &flow{stream: s, scope: scope, id: told.text, reconnects: reconnects, yield: yield}
	hears, news := s.user.hears(s.heard(scope)), told.news == s.news()
	switch {
	case hears && !hasMany(scope):
		err = f.listen(ctx, &oneKey{flow: f}, from, news)
	case hears && news:
		err = f.listen(ctx, &manyKeys{flow: f, consumer: c}, from, news)
	default:
		err = f.deliver(ctx, c, from, false)
	}
	return fmt.Errorf("bus: following %s: %w", scope, err)
}

// A flow is what one Follow yields.
type flow struct {
	*stream
	scope      string
	id         string
	reconnects uint64 // of the connection when it began
	yield      func(bus.Update) bool

	at       uint64 // the highest sequence reached
	recent   recent // what was yielded
	caughtUp bool
}

// entry yields what stands under a subject of the stream, unless it is known. What
// is no entry, by its subject or its size, is somebody else's message in the
// stream, and must not stop those who follow.
func (f *flow) entry(subject string, seq uint64, data []byte) error {
	if seq > f.recent.sure && !f.recent.has(seq, data) {
		f.recent.add(seq, data)
		key, err := f.key(subject)
		at := bus.Position{Log: f.id, Seq: seq}
		if err == nil && len(data) <= bus.MaxData && !f.yield(bus.Update{Entry: bus.Entry{Key: key, Data: data, Position: at}}) {
			return errStopped
		}
	}
	f.at = max(f.at, seq)
	f.reach(f.reconnects, seq)
	return nil
}

// mark yields the caught-up mark, once.
func (f *flow) mark() error {
	if f.caughtUp {
		return nil
	}
	f.caughtUp = true
	if !f.yield(bus.Update{Entry: bus.Entry{Position: bus.Position{Log: f.id, Seq: f.at}}, CaughtUp: true}) {
		return errStopped
	}
	return nil
}

// reconnectPatience is how long Follow waits for a connection that is being sought:
// whoever follows again would else ask in vain, wait, and so come late.
const reconnectPatience = 2 * time.Second

func (c *conn) awaitConnection(ctx context.Context) {
	if c.nc.IsConnected() {
		return
	}
	status := c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(status)
	if c.nc.IsConnected() || c.nc.IsClosed() {
		return
	}
	select {
	case <-status:
	case <-ctx.Done():
	case <-time.After(reconnectPatience):
	}
}

// whileConnected returns a context that ends, with errDisconnected as its
// cause, when the connection is lost.
func (c *conn) whileConnected(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	status := c.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-status:
			cancel(errDisconnected)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
		c.nc.RemoveStatusListener(status)
	}
}
