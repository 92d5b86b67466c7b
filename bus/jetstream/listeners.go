// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// manyKeys are caught up with by a consumer, to which nobody listens then.
type manyKeys struct {
	*flow
	consumer *consumer
	looks    int
}

func (k *manyKeys) catchUp(ctx context.Context, from bus.Position) error {
	return k.deliver(ctx, k.consumer, from, true)
}

// look has what was heard since the last look delivered again.
func (k *manyKeys) look(ctx context.Context, closely bool) error {
	if k.looks++; !closely && k.looks%fullLook != 1 {
		return nil
	}
	return k.deliver(ctx, k.consumer, bus.Position{Log: k.id, Seq: k.recent.sure}, true)
}

// oneKey is read, which needs no consumer.
type oneKey struct {
	*flow
	found uint64 // where the entry was found last, 0 before that
}

// catchUp does not find out whether from is above the stream's head.
func (k *oneKey) catchUp(ctx context.Context, from bus.Position) error {
	if !from.IsZero() && from.Log != k.id {
		if !k.board {
			return bus.ErrPosition
		}
		from = bus.Position{}
	}
	k.at, k.recent.sure = from.Seq, from.Seq
	if err := k.read(ctx); err != nil {
		return err
	}
	return k.mark()
}

// look reads the entry again.
func (k *oneKey) look(ctx context.Context, closely bool) error {
	if err := k.read(ctx); err != nil {
		return err
	}
	if k.found < k.at && (closely || k.recent.sure < k.at) && !k.board {
		return errBehind
	}
	return nil
}

// read yields the entry, if it is new.
func (k *oneKey) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	subject := k.subject(k.scope)
	msg, err := k.direct(ctx, k.stream.stream(), subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		k.found = 0
		return nil
	}
	if err != nil {
		return k.explained(ctx, err)
	}
	sequence, ok := only(msg, jetstream.SequenceHeader)
	seq, err := strconv.ParseUint(sequence, 10, 64)
	if !ok || err != nil {
		return errors.New("the server does not say where the entry stands")
	}
	k.found = seq
	return k.entry(subject, seq, msg.Data)
}
