// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// consumerTag starts the tag in a user's JWT by which his consumers have names
// of their own: "consumer:PREFIX".
const consumerTag = "consumer:"

// errReplaced ends a Follow whose consumer another one of the same scope took.
var errReplaced = errors.New("the same user follows the same scope anew over this connection: one Follow of a scope at a time")

// pinnedName is the name of the consumer of a user whose names are pinned. The
// server lets him have these alone.
func pinnedName(prefix, stream, scope string) string {
	h := sha256.Sum256([]byte(stream + "\x00" + scope))
	return prefix + "-" + hex.EncodeToString(h[:4])
}

// A consumer is the server's side of one Follow.
type consumer struct {
	*stream
	scope, inbox string
	pin          *pin // nil where the name is random
}

// A pin is one of a connection's pinned names. Of its followers one is in charge.
type pin struct {
	name  string
	setup sync.Mutex // held by the follower that makes its consumer

	mu  sync.Mutex
	end context.CancelCauseFunc // guarded by mu; of the follower in charge
}

func (s *stream) consumer(scope, inbox string) *consumer {
	c := &consumer{stream: s, scope: scope, inbox: inbox}
	if s.pinned != "" {
		name := pinnedName(s.pinned, s.stream(), scope)
		p, _ := s.pins.LoadOrStore(name, &pin{name: name})
		c.pin = p.(*pin)
	}
	return c
}

// claim puts this follower in charge of its pinned name: the one that is ends
// with errReplaced. The returned context ends likewise.
func (c *consumer) claim(ctx context.Context) (context.Context, func()) {
	if c.pin == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c.pin.mu.Lock()
	defer c.pin.mu.Unlock()
	if c.pin.end != nil {
		c.pin.end(errReplaced)
	}
	c.pin.end = cancel
	return ctx, func() { cancel(nil) }
}

// start makes the consumer. It returns from, which is zero where a board lost
// that position, the stream's newest sequence and how many messages wait.
func (c *consumer) start(ctx context.Context, id string, from bus.Position) (_ bus.Position, head, pending uint64, err error) {
	if c.pin != nil {
		c.pin.setup.Lock()
		defer c.pin.setup.Unlock()
		if ctx.Err() != nil {
			return from, 0, 0, context.Cause(ctx)
		}
	}
	// A consumer of what is new tells where that begins. It delivers nothing.
	probe, err := c.create(ctx, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return from, 0, 0, err
	}
	head = probe.Delivered.Stream
	if !from.IsZero() && (from.Log != id || from.Seq > head) {
		if !c.board {
			return from, 0, 0, bus.ErrPosition
		}
		from = bus.Position{}
	}
	info, err := c.create(ctx, jetstream.ConsumerConfig{
		DeliverSubject: c.inbox,
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    from.Seq + 1,
		MaxDeliver:     1,
		FlowControl:    true,
		IdleHeartbeat:  heartbeat,
	})
	if err != nil {
		return from, 0, 0, err
	}
	return from, head, info.NumPending, nil
}

// create makes a consumer of the scope that goes away by itself. One of a pinned
// name takes the place of what an earlier follower left.
func (c *consumer) create(ctx context.Context, config jetstream.ConsumerConfig) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	config.Name = "f" + rand.Text()
	config.FilterSubject = c.filter(c.scope)
	config.AckPolicy = jetstream.AckNonePolicy
	config.InactiveThreshold = heartbeat // a follower that lost its connection does not come back to it
	config.MemoryStorage = true
	config.Replicas = 1
	if c.pin != nil {
		config.Name = c.pin.name
		err := c.js.DeleteConsumer(ctx, c.stream.stream(), config.Name)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, fmt.Errorf("removing what an earlier follower left: %w", c.explained(ctx, err))
		}
	}
	if config.DeliverSubject == "" {
		made, err := c.js.CreateConsumer(ctx, c.stream.stream(), config)
		if err != nil {
			return nil, c.explained(ctx, err)
		}
		return made.CachedInfo(), nil
	}
	made, err := c.js.CreatePushConsumer(ctx, c.stream.stream(), config)
	if err != nil {
		return nil, c.explained(ctx, err)
	}
	return made.CachedInfo(), nil
}

// explained is explain, where the reason may be that the follower was ended.
func (c *consumer) explained(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errReplaced) || errors.Is(cause, errDisconnected) {
		return cause
	}
	return c.explain(err)
}
