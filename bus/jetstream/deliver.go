// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn/bus"
)

// maxPending bounds what waits to be taken, in bytes.
const maxPending = 64 << 20

// maxMissed is up to how many messages somebody who comes back catches up with without
// flow control, whose subscriptions the server takes out with a look at all requests that
// it has not answered: too much where thousands come back at once.
const maxMissed = 1 << 10

// A delivery turns a consumer's messages into a flow.
type delivery struct {
	*flow
	consumer  *consumer
	sub       *nats.Subscription
	messages  <-chan *nats.Msg
	many      bool   // whether more than one key can be in the scope
	from      uint64 // where it began
	last      uint64 // the highest sequence delivered
	delivered uint64
	waiting   uint64 // how many more there are, by the server's count
	looks     int
	end       bool // all that there was has come
}

// deliver yields what an ephemeral, ordered push consumer in the server's memory
// delivers: what lies after from, a mark, and then, unless it is only to catch up,
// what is appended.
func (f *flow) deliver(ctx context.Context, c *consumer, from bus.Position, catchUp bool) error {
	c.controlled = !catchUp || from.Seq == 0
	err := f.deliverOnce(ctx, c, from, catchUp)
	if errors.Is(err, errMuch) {
		c.controlled = true
		err = f.deliverOnce(ctx, c, from, catchUp)
	}
	if err == nil && catchUp {
		// Not before the consumer's subscription has ended: it goes away by itself when
		// nobody listens any more, and whoever is told now may take his time.
		err = f.mark()
	}
	return err
}

// errMuch means that more was missed than should come without flow control.
var errMuch = errors.New("much was missed")

func (f *flow) deliverOnce(ctx context.Context, c *consumer, from bus.Position, catchUp bool) error {
	c.inbox = f.nc.NewInbox()
	messages, done := make(chan *nats.Msg, 64), make(chan struct{})
	defer close(done)
	var sub *nats.Subscription
	listen := func() (err error) {
		sub, err = f.nc.Subscribe(c.inbox, func(msg *nats.Msg) {
			select {
			case messages <- msg:
			case <-done:
			}
		})
		if err != nil {
			return err
		}
		// Flow control keeps far below it; a server that ignores that ends the flow.
		return sub.SetPendingLimits(maxPending/64, maxPending)
	}
	defer func() {
		if sub != nil {
			_ = sub.Unsubscribe() // on a lost connection there is nothing to end
		}
	}()
	// Nothing is delivered while nobody listens: without flow control that is not before it
	// is known how much comes.
	if c.controlled {
		if err := listen(); err != nil {
			return err
		}
	}
	pending, err := c.start(ctx, f.id, from)
	if errors.Is(err, bus.ErrPosition) && f.board && !from.IsZero() {
		f.at = 0
		return f.deliver(ctx, c, bus.Position{}, catchUp)
	}
	switch {
	case err != nil:
		return err
	case !c.controlled && pending > maxMissed:
		return errMuch
	case !c.controlled:
		if err := listen(); err != nil {
			return err
		}
	}
	f.at = max(f.at, from.Seq)
	f.recent.sure = from.Seq
	d := delivery{flow: f, consumer: c, sub: sub, messages: messages, many: c.pin == nil || hasMany(f.scope), from: from.Seq, waiting: pending}
	if err := d.toTheEnd(ctx); err != nil {
		return err
	}
	if catchUp {
		return d.confirm()
	}
	for err = f.mark(); err == nil; {
		err = d.next(ctx)
	}
	return err
}

// toTheEnd takes all that there is.
func (d *delivery) toTheEnd(ctx context.Context) (err error) {
	if d.end = d.waiting == 0; d.end {
		d.end, err = d.complete(ctx)
	}
	came, since := d.delivered, time.Now()
	for !d.end && err == nil {
		err = d.next(ctx)
		if d.delivered > came {
			came, since = d.delivered, time.Now()
		}
		switch {
		case errors.Is(err, errQuiet):
			var n uint64
			if n, err = d.consumer.left(ctx, max(d.from, d.last)); n == 0 && err == nil {
				d.end, err = d.complete(ctx)
			}
			if !d.end && err == nil && time.Since(since) > stalled {
				err = errStalled
			}
		case err == nil && d.delivered > 0 && (d.waiting == 0 || !d.many):
			if d.end, err = d.all(ctx); d.end {
				d.end, err = d.complete(ctx)
			}
		}
	}
	return err
}

// maxLooks is how often a delivery looks whether more has been written meanwhile.
const maxLooks = 50

// all reports whether everything up to here, after which the server counts nothing
// more, is all that there is. That count alone is not enough: a message whose
// subject is written again is taken off it a moment before the new one is added.
// Who follows from a place goes on anyway; who follows from the start may be making
// a list, and shall have the whole. Of a single key there is no other that could
// be missed.
func (d *delivery) all(ctx context.Context) (bool, error) {
	if d.looks++; d.from > 0 || !d.many || d.looks > maxLooks {
		return true, nil
	}
	n, err := d.consumer.left(ctx, d.last)
	return n == 0, err
}

// confirm notes that nothing up to here can be missing. What was heard stands in
// the stream, or something newer: the error is errBehind where it does not.
func (d *delivery) confirm() error {
	if d.last < d.at && d.at > d.from {
		return errBehind
	}
	d.recent.confirm(d.at)
	return nil
}

// errBehind means that the stream does not have what was heard: it went back, or
// the copy of it that was asked has not come so far.
var errBehind = errors.New("the stream does not have what it had")

// quiet is how long the server may deliver nothing while it counts messages that
// wait, before it is asked whether there are any. Its count stays too high for
// good when a subject is written again at the wrong moment, and what it waits for
// then never comes.
const quiet = 250 * time.Millisecond

// stalled is how long the server may deliver nothing of the messages that it counts,
// asked again and again.
const stalled = 10 * time.Second

// errStalled means that it does not: it cannot read what it counts.
var errStalled = errors.New("the server counts messages that it does not deliver: its files may be damaged")

// errQuiet means that nothing came for that long.
var errQuiet = errors.New("quiet")

// next takes the next message. The error is errQuiet only before all that there
// was has come, and where there are many keys: of a single one the first message
// is all.
func (d *delivery) next(ctx context.Context) error {
	wait, silence := 3*heartbeat, errSilent
	if d.many && !d.end {
		wait, silence = quiet, errQuiet
	}
	msg, err := d.receive(ctx, wait, silence)
	if err != nil {
		return err
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "100" {
		return control(msg)
	}
	return d.take(msg)
}

// receive returns the next message, or after some time silence.
func (d *delivery) receive(ctx context.Context, wait time.Duration, silence error) (*nats.Msg, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case msg := <-d.messages:
		return msg, nil
	default:
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case msg := <-d.messages:
		return msg, nil
	case <-timer.C:
		if n, err := d.sub.Dropped(); err != nil || n > 0 {
			return nil, errGap
		}
		return nil, silence
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// take yields what a message says.
func (d *delivery) take(msg *nats.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	if d.delivered++; meta.Sequence.Consumer != d.delivered {
		return errGap
	}
	d.last, d.waiting = meta.Sequence.Stream, meta.NumPending
	return d.entry(msg.Subject, meta.Sequence.Stream, msg.Data)
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
