// SPDX-License-Identifier: Apache-2.0

// Package jetstream is the bus over NATS JetStream: two streams per tenant, one
// for the log and one for the board, whose newest message per subject is the
// newest entry of a key.
//
// Importing it lets [bus.OpenDir] open directories whose bus is at a nats:// or
// tls:// URL; [Connect] is for what is no such directory. Neither waits for the
// server, so that a program starts, and serves what it has, while the bus is
// down. [Create] makes the streams once. Package embedded, below, runs the server
// in the same process.
//
// A key "group/web/ID" of tenant "default" is the subject
// "keyturn.default.group.web.ID._"; the closing "_" lets one filter,
// "keyturn.default.group.web.>", stand for a scope. The streams keep one message
// per subject, and optimistic locking is JetStream's expected last sequence of
// the subject. A position's log id is drawn when the stream is made: a stream
// that was deleted and made again is another log.
//
// # Who may write
//
// A NATS server delivers its answer to a request wherever the request says,
// without asking whether the user may publish there: whoever may send any request
// can have an answer written over an entry, if the stream takes messages at a
// subject that he can name. Hence an entry is not written to the subject that it
// stands under but to "ktput.default.log.WORD.group.web.ID._", and the stream
// moves it. WORD is drawn when the stream is made and stands in the stream's
// configuration, which managers may ask for and nobody else. Requests to join and
// receipts, which others write too, have the word "open": the stream takes no
// other scope by it.
//
// Others learn a stream's id from a message in the log, and its newest sequence
// from a consumer. [Mint] makes credentials with exactly the rights that each
// needs.
//
// # Who follows
//
// The server republishes each new entry at "ktnews.default.log.group.web.ID._". A
// replica listens there, and catches up with its group by an ephemeral consumer that
// goes away then, and with single keys by reading them; so a fleet that is current
// costs the server its connections. What was heard is no proof that nothing is
// missing, nor is it the server who speaks wherever something is heard: see
// flow.hear and flow.listen. Managers, and users whose credentials or streams are of
// an earlier version, follow by consumers.
//
// # Durability
//
// Entries survive a power cut only where the server runs with "sync_interval:
// always", as the embedded one does: by default NATS writes to the disk every
// two minutes. The board never waits for the disk.
package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// requestTimeout bounds one request to the server.
const requestTimeout = 5 * time.Second

// A Log is a tenant's log, with its board, over a connection of its own. It is
// safe for concurrent use.
type Log struct {
	*conn
	stream  *stream
	board   *Board
	options Options // with which it was connected
}

var (
	_ bus.Conn  = (*Log)(nil)
	_ bus.Board = (*Board)(nil)
)

func newLog(c *conn, tenant string) *Log {
	return &Log{
		conn:   c,
		stream: &stream{conn: c, names: names{tenant: tenant}},
		board:  &Board{&stream{conn: c, names: names{tenant: tenant, board: true}}},
	}
}

// Create is the function Create over this connection.
func (l *Log) Create(ctx context.Context, known string) (id string, err error) {
	return create(ctx, l.conn, l.stream.tenant, known, 0)
}

// Board implements bus.Boarder.
func (l *Log) Board() bus.Board { return l.board }

// Follow implements bus.Log.
func (l *Log) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return l.stream.Follow(ctx, scope, from)
}

// Get implements bus.Log.
func (l *Log) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	e, err := l.get(ctx, key)
	l.answered(err)
	return e, err
}

func (l *Log) get(ctx context.Context, key string) (bus.Entry, error) {
	id, err := l.stream.identity(ctx)
	if err != nil {
		return bus.Entry{}, err
	}
	seq, data, err := l.newest(ctx, key)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return bus.Entry{}, bus.ErrNotFound
	}
	if err != nil {
		return bus.Entry{}, fmt.Errorf("bus: reading %s: %w", key, l.explain(err))
	}
	if len(data) > bus.MaxData {
		return bus.Entry{}, fmt.Errorf("bus: reading %s: %w", key, bus.ErrTooLarge)
	}
	return bus.Entry{Key: key, Data: data, Position: bus.Position{Log: id, Seq: seq}}, nil
}

// newest reads a key's newest message: from the leader, which has seen every
// append. Those who may read single keys only are answered by any copy of the
// stream.
func (l *Log) newest(ctx context.Context, key string) (seq uint64, data []byte, err error) {
	subject := l.stream.subject(key)
	if l.user.consumers != "" {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		msg, err := l.direct(ctx, l.stream.stream(), subject)
		if err != nil {
			return 0, nil, err
		}
		seq, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
		return seq, msg.Data, err
	}
	// Stream.GetLastMsgForSubject would ask any copy.
	request, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return 0, nil, err
	}
	err = l.stream.patiently(ctx, func(ctx context.Context) error {
		got, err := l.stream.message(ctx, request)
		if err == nil {
			seq, data = got.Seq, got.Data
		}
		return err
	})
	return seq, data, err
}

// Append implements bus.Log. Where the server does not answer, it asks what
// became of the entry and tries again until ctx ends.
func (l *Log) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if err := bus.CheckAppend(key, data); err != nil {
		return bus.Position{}, err
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		p, err := l.publish(ctx, key, after, data)
		l.answered(err)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, errUnknownOutcome) && !wrongLast(err) {
			return bus.Position{}, fmt.Errorf("bus: writing %s: %w", key, err)
		}
		newest, getErr := l.Get(ctx, key)
		none := errors.Is(getErr, bus.ErrNotFound)
		switch {
		case getErr == nil && bytes.Equal(newest.Data, data):
			return newest.Position, nil
		case wrongLast(err) && (getErr == nil || none) && newest.Position == after:
			// The copy that was asked does not have what the one that leads has.
		case wrongLast(err) && (getErr == nil || none):
			return bus.Position{}, &bus.ConflictError{Key: key, After: after, Newest: newest.Position}
		}
		select {
		case <-ctx.Done():
			return bus.Position{}, fmt.Errorf("bus: writing %s: %w (%w)", key, l.explain(err), ctx.Err())
		case <-time.After(wait):
		}
	}
}

// errUnknownOutcome says that an entry may or may not have been written.
var errUnknownOutcome = errors.New("no answer from the server")

// wrongLast reports whether the compare-and-set failed. A replicated stream has
// a code of its own for it.
func wrongLast(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errForeignAfter) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// errForeignAfter is the conflict that is known without asking the server.
var errForeignAfter = errors.New("the position is another log's")

func (l *Log) publish(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	id, err := l.stream.identity(ctx)
	if err != nil {
		return bus.Position{}, retryable(ctx, err)
	}
	if !after.IsZero() && after.Log != id {
		return bus.Position{}, errForeignAfter
	}
	word, err := l.stream.wordFor(ctx, key)
	if err != nil {
		return bus.Position{}, retryable(ctx, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ack, err := l.js.PublishMsg(ctx, &nats.Msg{Subject: l.stream.target(word, key), Data: data},
		jetstream.WithExpectStream(l.stream.stream()),
		jetstream.WithExpectLastSequencePerSubject(after.Seq),
		jetstream.WithRetryAttempts(0))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		l.stream.forget() // it may have been made anew
	}
	if err != nil {
		return bus.Position{}, retryable(ctx, err)
	}
	return bus.Position{Log: id, Seq: ack.Sequence}, nil
}

// retryable marks an error after which the outcome is unknown. What the server
// itself answered is an outcome.
func retryable(ctx context.Context, err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code < 500 {
		return err
	}
	for _, final := range []error{nats.ErrConnectionClosed, nats.ErrMaxPayload, nats.ErrBadSubject, nats.ErrHeadersNotSupported} {
		if errors.Is(err, final) {
			return err
		}
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errUnknownOutcome, err)
}
