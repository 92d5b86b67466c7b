// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// maxHeard is how many messages of a scope wait to be taken. If there are more,
// Follow ends, and whoever follows again catches up by a consumer, which waits for
// him.
const (
	maxHeard      = 1024
	maxHeardOfOne = 256
)

// Times of looking whether something was missed.
const (
	// lookEvery is the mean time between two looks.
	lookEvery = 10 * time.Minute
	// lookEveryCluster is the same where the bus is a cluster: a message can be lost
	// between its servers, after it was committed and before it was republished. Of
	// what a group was sent, every fullLook-th look is one at all of it.
	lookEveryCluster = 2 * time.Minute
	fullLook         = 5
	// pollEvery is the same where a single key's news cannot be heard.
	pollEvery = heartbeat
	// firstLook is when a cluster is looked at first: its servers may hear of a
	// subscription after they have answered what was asked behind it.
	firstLook = 10 * time.Second
	// lookLeast is how long after a look the next may be, whatever is heard.
	lookLeast = 10 * time.Second
	// behindSteps times behindWait is how long a copy of the stream that is behind
	// the others is waited for.
	behindSteps = 3
	behindWait  = time.Second / 2
)

// A listener is what is listened for: one key, or a scope of many.
type listener interface {
	// catchUp yields what there is after from, and the mark.
	catchUp(ctx context.Context, from bus.Position) error
	// look yields what was missed. The error is errBehind if the stream, or the copy
	// that answered, does not have what was heard; closely says that something
	// heard is odd.
	look(ctx context.Context, closely bool) error
}

// listen yields what there is, and then what the server republishes. Position and
// completeness never rest on what was heard alone: a server delivers an answer to
// any subject that a request names, so what is heard need not be news (see hear),
// and what should have been heard can be lost. Hence looks.
func (f *flow) listen(ctx context.Context, l listener, from bus.Position, news bool) error {
	heard := make(chan *nats.Msg, maxHeard)
	if !hasMany(f.scope) {
		heard = make(chan *nats.Msg, maxHeardOfOne)
	}
	// First of all: what is appended from now on is heard, and what was appended
	// before, the server knows when it is asked for it.
	sub, err := f.nc.ChanSubscribe(f.heard(f.scope), heard)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // on a lost connection there is nothing to end
	if err := l.catchUp(ctx, from); err != nil {
		return err
	}
	cluster := f.clustered()
	every := lookEvery
	switch {
	case !news:
		every = pollEvery
	case cluster:
		every = lookEveryCluster
	}
	first := every
	if cluster {
		first = min(firstLook, every)
	}
	var last time.Time // of the looks
	odd := false
	timer := time.NewTimer(jittered(first))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case msg := <-heard:
			is, err := f.take(msg)
			if err != nil {
				return err
			}
			if is && !odd {
				odd = true
				timer.Reset(max(0, time.Until(last.Add(lookLeast))) + rand.N(time.Second))
			}
		case <-timer.C:
			if err := f.lookAgain(ctx, l, odd); err != nil {
				return err
			}
			odd, last = false, time.Now()
			timer.Reset(jittered(every))
		}
		if n, err := sub.Dropped(); err != nil || n > 0 {
			return errGap
		}
	}
}

// jittered is a time whose mean is d.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// lookAgain looks whether it is still the same stream, and what was missed of it.
func (f *flow) lookAgain(ctx context.Context, l listener, closely bool) error {
	told, err := f.askIdentity(ctx)
	if err != nil {
		return err
	}
	if told.text != f.id {
		return errors.New("the stream is another one")
	}
	for step := 1; ; step++ {
		err := l.look(ctx, closely)
		if !errors.Is(err, errBehind) {
			return err
		}
		if step > behindSteps {
			return bus.ErrPosition
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(behindWait):
		}
	}
}

// take yields what was heard. It reports whether that is odd: nothing that was
// yielded, and not behind it either.
func (f *flow) take(msg *nats.Msg) (odd bool, err error) {
	subject, seq, ok := f.hear(msg)
	switch {
	case !ok:
		return false, nil
	case f.nc.Stats().Reconnects != f.reconnects:
		return false, errDisconnected // and what was said meanwhile is missing
	case seq > f.at:
		return false, f.entry(subject, seq, msg.Data)
	default:
		return !f.recent.has(seq, msg.Data), nil
	}
}

// hear returns what the server says of an entry, and false where it is not the
// server that says so. Nobody may publish at these subjects, but whoever may ask for
// something can have the answer delivered there, and who may write something can
// give it headers. So the subject has to be the one that the entry stands under, as
// it is not where a consumer delivers; there must be no reply, as there is where a
// consumer wants an acknowledgement; and each header must be there once, as it is
// not where the server adds its own to a writer's.
func (f *flow) hear(msg *nats.Msg) (subject string, seq uint64, ok bool) {
	stream, one := only(msg, jetstream.StreamHeader)
	subject, two := only(msg, jetstream.SubjectHeader)
	sequence, three := only(msg, jetstream.SequenceHeader)
	key, kept := strings.CutPrefix(subject, f.kept())
	if !one || !two || !three || !kept || msg.Reply != "" || stream != f.stream.stream() || msg.Subject != f.news()+key {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(sequence, 10, 64)
	return subject, seq, err == nil
}

// only returns the value of a header that is there once.
func only(msg *nats.Msg, name string) (string, bool) {
	values := msg.Header[name]
	if len(values) != 1 {
		return "", false
	}
	return values[0], true
}
