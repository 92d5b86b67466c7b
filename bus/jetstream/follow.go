// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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

// Follow implements bus.Log by an ephemeral, ordered push consumer in the
// server's memory. It does not repair a broken flow: it ends, and whoever
// follows again looks first whether it is still the same log.
func (l *Log) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		err := l.follow(ctx, scope, from, func(u bus.Update) bool { return yield(u, nil) })
		switch {
		case err == nil: // the caller stopped
		case ctx.Err() != nil:
			yield(bus.Update{}, ctx.Err())
		default:
			yield(bus.Update{}, err)
		}
	}
}

func (l *Log) follow(ctx context.Context, scope string, from bus.Position, yield func(bus.Update) bool) error {
	if err := bus.CheckKey(scope); err != nil {
		return err
	}
	// Watched from before the first question, so that no break goes unseen.
	ctx, stop := l.whileConnected(ctx)
	defer stop()

	id, head, err := l.info(ctx)
	if err != nil {
		return err
	}
	if !from.IsZero() && (from.Log != id || from.Seq > head) {
		return bus.ErrPosition
	}
	inbox := l.nc.NewInbox()
	sub, err := l.nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("bus: following %s: %w", scope, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // on a lost connection there is nothing to end
	// Flow control keeps far below it; a server that ignores that ends the flow.
	if err := sub.SetPendingLimits(maxPending/64, maxPending); err != nil {
		return fmt.Errorf("bus: following %s: %w", scope, err)
	}
	pending, err := l.consume(ctx, scope, from.Seq+1, inbox)
	if err != nil {
		return fmt.Errorf("bus: following %s: %w", scope, l.explain(err))
	}
	caughtUp := false
	mark := func(seq uint64) bool {
		caughtUp = true
		return yield(bus.Update{Entry: bus.Entry{Position: bus.Position{Log: id, Seq: seq}}, CaughtUp: true})
	}
	if pending == 0 && !mark(max(from.Seq, head)) {
		return nil
	}
	for delivered := uint64(0); ; {
		msg, err := next(ctx, sub)
		if err != nil {
			return fmt.Errorf("bus: following %s: %w", scope, err)
		}
		if msg == nil {
			continue
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("bus: following %s: %w", scope, err)
		}
		if delivered++; meta.Sequence.Consumer != delivered {
			return fmt.Errorf("bus: following %s: %w", scope, errGap)
		}
		at := bus.Position{Log: id, Seq: meta.Sequence.Stream}
		// What is no entry, by its subject or its size, is somebody else's message
		// in the stream, and must not stop those who follow.
		if key, err := keyOf(l.tenant, msg.Subject); err == nil && len(msg.Data) <= bus.MaxData {
			if !yield(bus.Update{Entry: bus.Entry{Key: key, Data: msg.Data, Position: at}}) {
				return nil
			}
		}
		if !caughtUp && meta.NumPending == 0 && !mark(max(at.Seq, head)) {
			return nil
		}
	}
}

// consume makes the consumer and returns how many messages wait for it.
func (l *Log) consume(ctx context.Context, scope string, start uint64, inbox string) (pending uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c, err := l.js.CreatePushConsumer(ctx, StreamName(l.tenant), jetstream.ConsumerConfig{
		Name:              "f" + inbox[len(inbox)-22:], // the inbox's random part
		DeliverSubject:    inbox,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		FilterSubject:     Filter(l.tenant, scope),
		AckPolicy:         jetstream.AckNonePolicy,
		MaxDeliver:        1,
		FlowControl:       true,
		IdleHeartbeat:     heartbeat,
		InactiveThreshold: heartbeat, // a follower that lost its connection does not come back to it
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return 0, err
	}
	return c.CachedInfo().NumPending, nil
}

// whileConnected returns a context that ends, with errDisconnected as its
// cause, when the connection is lost.
func (l *Log) whileConnected(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	status := l.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
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
		l.nc.RemoveStatusListener(status)
	}
}

// next returns the next entry's message, or nil after a control message.
func next(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*heartbeat, errSilent)
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
