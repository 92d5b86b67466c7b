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

// maxPending bounds what waits to be taken, in bytes.
const maxPending = 64 << 20

// Errors with which Follow ends when the flow of messages broke.
var (
	errSilent       = errors.New("the server went silent")
	errGap          = errors.New("a message is missing")
	errDisconnected = errors.New("the connection was lost")
)

// Follow is a Log's and a Board's, by an ephemeral, ordered push consumer in the
// server's memory. It does not repair a broken flow: it ends, and whoever
// follows again looks first whether it is still the same stream.
func (s *stream) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		err := s.follow(ctx, scope, from, func(u bus.Update) bool { return yield(u, nil) })
		switch {
		case err == nil: // the caller stopped
		case ctx.Err() != nil:
			yield(bus.Update{}, ctx.Err())
		default:
			s.forget() // it may be another stream by now
			yield(bus.Update{}, err)
		}
	}
}

func (s *stream) follow(ctx context.Context, scope string, from bus.Position, yield func(bus.Update) bool) error {
	if err := bus.CheckKey(scope); err != nil {
		return err
	}
	// Watched from before the first question, so that no break goes unseen.
	ctx, stop := s.whileConnected(ctx)
	defer stop()

	reconnects := s.nc.Stats().Reconnects
	id, err := s.identity(ctx)
	if err != nil {
		return err
	}
	sub, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		return fmt.Errorf("bus: following %s: %w", scope, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // on a lost connection there is nothing to end
	// Flow control keeps far below it; a server that ignores that ends the flow.
	if err := sub.SetPendingLimits(maxPending/64, maxPending); err != nil {
		return fmt.Errorf("bus: following %s: %w", scope, err)
	}
	c := s.consumer(scope, sub.Subject)
	ctx, release := c.claim(ctx)
	defer release()
	from, pending, err := c.start(ctx, id, from)
	if err != nil {
		return fmt.Errorf("bus: following %s: %w", scope, err)
	}
	f := flow{names: s.names, id: id, at: from.Seq, yield: yield}
	if pending == 0 && !f.mark() {
		return nil
	}
	many := c.pin == nil || hasMany(scope)
	catchUp := catchUp{consumer: c, look: from.IsZero() && many}
	for {
		msg, err := f.next(ctx, sub, many)
		if errors.Is(err, errQuiet) {
			n, err := c.left(ctx, f.at)
			if err != nil {
				return fmt.Errorf("bus: following %s: %w", scope, err)
			}
			if n == 0 && !f.mark() {
				return nil
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("bus: following %s: %w", scope, err)
		}
		if msg == nil {
			continue
		}
		more, err := f.take(msg)
		if err != nil {
			return fmt.Errorf("bus: following %s: %w", scope, err)
		}
		if !more {
			return nil
		}
		s.reach(reconnects, f.at)
		if f.caughtUp || f.waiting > 0 && many {
			continue
		}
		if done, err := catchUp.done(ctx, f.at); err != nil {
			return fmt.Errorf("bus: following %s: %w", scope, err)
		} else if done && !f.mark() {
			return nil
		}
	}
}

// A flow turns a consumer's messages into updates.
type flow struct {
	names
	id        string
	at        uint64 // the sequence reached
	delivered uint64
	waiting   uint64 // how many more there are, by the server's count
	caughtUp  bool
	yield     func(bus.Update) bool
}

// take yields what a message says, and reports whether to go on.
func (f *flow) take(msg *nats.Msg) (more bool, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return false, err
	}
	if f.delivered++; meta.Sequence.Consumer != f.delivered {
		return false, errGap
	}
	at := bus.Position{Log: f.id, Seq: meta.Sequence.Stream}
	// What is no entry, by its subject or its size, is somebody else's message
	// in the stream, and must not stop those who follow.
	if key, err := f.key(msg.Subject); err == nil && len(msg.Data) <= bus.MaxData {
		if !f.yield(bus.Update{Entry: bus.Entry{Key: key, Data: msg.Data, Position: at}}) {
			return false, nil
		}
	}
	f.at, f.waiting = at.Seq, meta.NumPending
	return true, nil
}

// catchUp finds out whether all that there was has come.
type catchUp struct {
	*consumer
	look  bool // whether to: where a list may be made
	looks int
}

// maxLooks is how often catchUp looks whether more has been written meanwhile.
const maxLooks = 50

// done reports whether everything up to a sequence, after which the server counts
// nothing more, is all that there is. That count alone is not enough: a message
// whose subject is written again is taken off it a moment before the new one is
// added. Who follows from a place goes on anyway; who follows from the start may
// be making a list, and shall have the whole. Of a single key there is no other
// that could be missed.
func (c *catchUp) done(ctx context.Context, at uint64) (bool, error) {
	if c.looks++; !c.look || c.looks > maxLooks {
		return true, nil
	}
	n, err := c.left(ctx, at)
	return n == 0, err
}

// mark yields the caught-up mark.
func (f *flow) mark() bool {
	f.caughtUp = true
	return f.yield(bus.Update{Entry: bus.Entry{Position: bus.Position{Log: f.id, Seq: f.at}}, CaughtUp: true})
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

// quiet is how long the server may deliver nothing while it counts messages that
// wait, before it is asked whether there are any. Its count stays too high for
// good when a subject is written again at the wrong moment, and what it waits for
// then never comes.
const quiet = 250 * time.Millisecond

// errQuiet means that nothing came for that long.
var errQuiet = errors.New("quiet")

// next returns the next entry's message, or nil after a control message. The error
// is errQuiet only before all that there was has come, and where there are many
// keys: of a single one the first message is all.
func (f *flow) next(ctx context.Context, sub *nats.Subscription, many bool) (*nats.Msg, error) {
	wait, silence := 3*heartbeat, errSilent
	if many && !f.caughtUp {
		wait, silence = quiet, errQuiet
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, silence)
	defer cancel()
	msg, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "100" {
		return nil, control(msg)
	}
	return msg, nil
}

// control answers the server's flow control: a message with a reply subject
// asks for an empty answer; a heartbeat may name the subject of a stalled
// request.
func control(msg *nats.Msg) error {
	if msg.Reply != "" {
		return msg.Respond(nil)
	}
	if stalled := msg.Header.Get("Nats-Consumer-Stalled"); stalled != "" {
		return (&nats.Msg{Subject: msg.Subject, Reply: stalled, Sub: msg.Sub}).Respond(nil)
	}
	return nil
}
