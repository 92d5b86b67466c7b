// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// A follower is a consumer. Whoever may follow may make as many as he has names
// for: their number is bounded, and those that nobody listens to end.
const (
	maxConsumers = 50_000
	maxInactive  = 5 * time.Minute
)

// boardAge is how long the board keeps what nobody says again.
const boardAge = 7 * 24 * time.Hour

// Create makes a tenant's streams, the log's and the board's, and returns the
// log's id. A known id is one that an earlier Create returned: if the log is
// gone then, or is another one, Create says so instead of going on with an empty
// one. A board that is missing is made.
//
// The connection needs the right to ask for and make these two streams, to write
// to them and to read the ids. Whoever may make a stream can read all others of
// the account through it: managers do not have that right.
func Create(ctx context.Context, nc *nats.Conn, tenant, known string) (id string, err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return "", fmt.Errorf("bus: jetstream: %w", err)
	}
	return create(ctx, &conn{nc: nc, js: js}, tenant, known, 0)
}

// create is Create, with a number of copies for what it makes; 0 is as many as
// are usual.
func create(ctx context.Context, c *conn, tenant, known string, replicas int) (id string, err error) {
	log := &stream{conn: c, names: names{tenant: tenant}}
	id, word, err := log.info(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && known == "":
		id, word, err = log.createPatiently(ctx, replicas)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return "", fmt.Errorf("%w: stream %s, which held log %s, is gone: restore the server's data", bus.ErrPosition, logName(tenant), known)
	case err == nil && known != "" && id != known:
		return "", fmt.Errorf("%w: stream %s holds log %s, not %s: restore the server's data", bus.ErrPosition, logName(tenant), id, known)
	}
	if err != nil {
		return "", err
	}
	board := &stream{conn: c, names: names{tenant: tenant, board: true}}
	boardID, _, err := board.info(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		boardID, _, err = board.createPatiently(ctx, replicas)
	}
	if err != nil {
		return "", err
	}
	if err := log.tell(ctx, word, log, id); err != nil {
		return "", err
	}
	return id, log.tell(ctx, word, board, boardID)
}

// tell writes to the log what those may know of a stream who may not ask for it.
func (s *stream) tell(ctx context.Context, word string, of *stream, id string) error {
	news, err := of.republish(ctx)
	if err != nil {
		return err
	}
	subject := of.idSubject()
	told := &nats.Msg{Subject: s.written() + word + "." + subject[len(s.kept()):], Data: []byte(id), Header: nats.Header{}}
	if news != "" {
		told.Header.Set(newsHeader, news)
	}
	err = s.patiently(ctx, func(ctx context.Context) error {
		msg, err := s.direct(ctx, s.stream(), subject)
		if err == nil && string(msg.Data) == id && msg.Header.Get(newsHeader) == news {
			return nil
		}
		if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
			_, err = s.js.PublishMsg(ctx, told)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("bus: writing the id of stream %s: %w", of.stream(), s.explain(err))
	}
	return nil
}

// createPatiently repeats what the server itself failed at: a server that has
// just started tidies its directories, and a stream made at that moment can
// find its own gone. In a cluster nobody may answer for a while.
func (s *stream) createPatiently(ctx context.Context, replicas int) (id, word string, err error) {
	for attempt := 1; ; attempt++ {
		err := s.create(ctx, replicas)
		var api *jetstream.APIError
		switch {
		case err == nil:
			return s.info(ctx)
		case attempt == 20 || (!errors.As(err, &api) || api.Code < 500) && !(s.clustered() && noAnswer(err)):
			return "", "", err
		}
		select {
		case <-ctx.Done():
			return "", "", err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *stream) create(ctx context.Context, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.js.CreateStream(ctx, s.config(cmp.Or(replicas, usualReplicas)))
	if replicas == 0 && tooFewServers(err) {
		_, err = s.js.CreateStream(ctx, s.config(1))
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil // another manager was faster
	}
	if err != nil {
		return fmt.Errorf("bus: making stream %s: %w", s.stream(), err)
	}
	return nil
}

// config is that of a new stream, with an id and a word of its own.
func (s *stream) config(replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:              s.stream(),
		Description:       "Keyturn: the newest entry of every key",
		Subjects:          []string{s.written() + rand.Text() + ".>", s.written() + openWord + "." + s.open() + ".>"},
		SubjectTransform:  &jetstream.SubjectTransformConfig{Source: s.written() + "*.>", Destination: s.kept() + ">"},
		RePublish:         s.republished(),
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxConsumers:      maxConsumers,
		ConsumerLimits:    jetstream.StreamConsumerLimits{InactiveThreshold: maxInactive},
		MaxMsgSize:        bus.MaxData + 4096, // and the headers
		Replicas:          replicas,
		AllowDirect:       true,
		DenyDelete:        true,
		DenyPurge:         true,
		Metadata:          map[string]string{metadataLog: rand.Text()},
	}
	if s.board {
		c.Description = "Keyturn: the newest notice of every key"
		c.MaxAge = boardAge
		if replicas == 1 {
			// Not fsynced, whatever the server does otherwise. Servers that agree on
			// the order of what they write do not offer it.
			c.PersistMode = jetstream.AsyncPersistMode
		}
	}
	return c
}
