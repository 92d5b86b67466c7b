// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
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

// A consumer is the server's side of one Follow: of a whole one, or of catching up.
type consumer struct {
	*stream
	scope string
	inbox string // where it delivers to
	// controlled says that it delivers no faster than is taken.
	controlled bool
	pin        *pin // nil where the name is random
}

// A pin is one of a connection's pinned names. Of its followers one is in charge.
type pin struct {
	name  string
	setup sync.Mutex // held by the follower that makes its consumer

	mu  sync.Mutex
	end context.CancelCauseFunc // guarded by mu; of the follower in charge
}

func (s *stream) consumer(scope string) *consumer {
	c := &consumer{stream: s, scope: scope}
	if s.user.consumers != "" {
		name := pinnedName(s.user.consumers, s.stream(), scope)
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

// setupTimeout bounds how long a consumer is waited for: a whole fleet may want
// its consumers at once, which the server makes one by one.
const setupTimeout = 3 * heartbeat

// start makes the consumer, of what lies at or after from, and returns how many
// messages wait. The error is bus.ErrPosition where from is not in the stream.
func (c *consumer) start(ctx context.Context, id string, from bus.Position) (pending uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if c.pin != nil {
		c.pin.setup.Lock()
		defer c.pin.setup.Unlock()
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	if !from.IsZero() && from.Log != id {
		return 0, bus.ErrPosition
	}
	if pending, err = c.push(ctx, from); err != nil || pending > 0 || from.Seq <= c.reached() {
		return pending, err
	}
	// The entry at from is gone, and none of the scope came after it; or from is
	// the place of another scope's.
	look := c.look()
	if err := look.awaitHead(ctx, from.Seq); err != nil {
		return 0, err
	}
	if look == c {
		return c.push(ctx, from) // that look took its name
	}
	return 0, nil
}

// push makes the consumer that delivers to the inbox.
func (c *consumer) push(ctx context.Context, from bus.Position) (pending uint64, err error) {
	info, err := c.create(ctx, jetstream.ConsumerConfig{
		DeliverSubject: c.inbox,
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    max(from.Seq, 1),
		MaxDeliver:     1,
		FlowControl:    c.controlled,
		IdleHeartbeat:  heartbeat,
	})
	if err != nil {
		return 0, err
	}
	return info.NumPending, nil
}

// askHead asks for the stream's newest sequence, by a consumer of what is new:
// it tells where that begins, and delivers nothing.
func (c *consumer) askHead(ctx context.Context) (uint64, error) {
	reconnects := c.nc.Stats().Reconnects
	info, err := c.create(ctx, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return 0, err
	}
	c.reach(reconnects, info.Delivered.Stream)
	return info.Delivered.Stream, c.remove(ctx)
}

// left asks how many messages of the scope there are after a sequence, by another
// consumer, which delivers nothing.
func (c *consumer) left(ctx context.Context, after uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	look := c.look()
	info, err := look.create(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	})
	if err != nil {
		return 0, err
	}
	return info.NumPending, look.remove(ctx)
}

// look is a consumer of the scope beside this one; this one itself where a pinned
// user follows a single key, since each right makes his credentials longer.
func (c *consumer) look() *consumer {
	look := &consumer{stream: c.stream, scope: c.scope, inbox: c.inbox}
	if c.pin != nil && !hasMany(c.scope) {
		return c
	}
	if c.pin != nil {
		look.pin = &pin{name: c.pin.name + lookSuffix}
	}
	return look
}

// hasMany reports whether a scope that a pinned user follows has more than one key.
func hasMany(scope string) bool { return strings.HasPrefix(scope, event.GroupScope("")) }

// lookSuffix is what the pinned name of a consumer that only looks ends with.
const lookSuffix = "-look"

// create makes a consumer of the scope that goes away by itself. One of a pinned
// name takes the place of what an earlier follower left.
func (c *consumer) create(ctx context.Context, config jetstream.ConsumerConfig) (*jetstream.ConsumerInfo, error) {
	config.Name = "f" + rand.Text()
	if c.pin != nil {
		config.Name = c.pin.name
	}
	config.Description = c.inbox // unlike what was left, so that the server does not take it for the same
	config.FilterSubject = c.filter(c.scope)
	config.AckPolicy = jetstream.AckNonePolicy
	config.InactiveThreshold = heartbeat // a follower that lost its connection does not come back to it
	config.MemoryStorage = true
	config.Replicas = 1
	info, err := c.ask(ctx, config)
	var api *jetstream.APIError
	if c.pin != nil && errors.As(err, &api) { // there is one of that name
		if err := c.remove(ctx); err != nil {
			return nil, err
		}
		info, err = c.ask(ctx, config)
	}
	return info, c.explained(ctx, err)
}

func (c *consumer) ask(ctx context.Context, config jetstream.ConsumerConfig) (*jetstream.ConsumerInfo, error) {
	if config.DeliverSubject == "" {
		made, err := c.js.CreateConsumer(ctx, c.stream.stream(), config)
		if err != nil {
			return nil, err
		}
		return made.CachedInfo(), nil
	}
	made, err := c.js.CreatePushConsumer(ctx, c.stream.stream(), config)
	if err != nil {
		return nil, err
	}
	return made.CachedInfo(), nil
}

// remove removes the consumer of a pinned name. One of a random name goes away
// by itself.
func (c *consumer) remove(ctx context.Context) error {
	if c.pin == nil {
		return nil
	}
	err := c.js.DeleteConsumer(ctx, c.stream.stream(), c.pin.name)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("removing what an earlier follower left: %w", c.explained(ctx, err))
	}
	return nil
}
