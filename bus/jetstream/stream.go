// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// metadataLog is the key of the stream's id in its metadata.
const metadataLog = "keyturn.log"

// wellFormed is what rand.Text makes. What the server tells is its word alone.
var wellFormed = regexp.MustCompile(`^[A-Z2-7]{16,64}$`)

// A stream is the one that holds a tenant's log, or its board, over a
// connection.
type stream struct {
	*conn
	names

	mu sync.Mutex
	// What follows is good for one connection: after a reconnect it may be
	// another server, or another stream.
	id, word fact // guarded by mu; the id's also has where news are heard
	head     fact // guarded by mu; a sequence that the stream has reached
}

// A fact is what the server said over one connection.
type fact struct {
	text       string
	news       string // where news are heard, "" where nowhere
	seq        uint64
	reconnects uint64
}

// recall returns a fact, after asking where it is not known.
func (s *stream) recall(f *fact, ask func() (fact, error)) (fact, error) {
	for {
		reconnects := s.nc.Stats().Reconnects
		s.mu.Lock()
		known := *f
		s.mu.Unlock()
		if known.text != "" && known.reconnects == reconnects {
			return known, nil
		}
		told, err := ask()
		if err != nil {
			return fact{}, err
		}
		told.reconnects = reconnects
		s.mu.Lock()
		*f = told
		s.mu.Unlock()
	}
}

// forget makes the next call ask anew.
func (s *stream) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.word, s.head = fact{}, fact{}, fact{}
}

// reached returns a sequence that the stream has reached, 0 if none is known.
func (s *stream) reached() uint64 {
	reconnects := s.nc.Stats().Reconnects
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head.reconnects != reconnects {
		return 0
	}
	return s.head.seq
}

// reach keeps a sequence that was seen over the connection with this number.
func (s *stream) reach(reconnects, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head.reconnects != reconnects || s.head.seq < seq {
		s.head = fact{seq: seq, reconnects: reconnects}
	}
}

// identity returns the stream's id, asked for at most once per connection unless
// it is to be forgotten.
func (s *stream) identity(ctx context.Context) (string, error) {
	f, err := s.told(ctx)
	return f.text, err
}

// told returns the stream's id, and where its news are heard.
func (s *stream) told(ctx context.Context) (fact, error) {
	return s.recall(&s.id, func() (fact, error) { return s.askIdentity(ctx) })
}

// askIdentity reads from the log what even those may know who may know nothing
// else of the stream.
func (s *stream) askIdentity(ctx context.Context) (fact, error) {
	var msg *nats.Msg
	err := s.patiently(ctx, func(ctx context.Context) (err error) {
		msg, err = s.direct(ctx, logName(s.tenant), s.idSubject())
		return err
	})
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrMsgNotFound):
		return fact{}, fmt.Errorf("bus: asking for stream %s: %w", s.stream(), jetstream.ErrStreamNotFound)
	case err != nil:
		return fact{}, fmt.Errorf("bus: asking for stream %s: %w", s.stream(), s.explain(err))
	case !wellFormed.Match(msg.Data):
		return fact{}, fmt.Errorf("bus: stream %s has an id that is not one of ours: it is not a keyturn log", s.stream())
	}
	return fact{text: string(msg.Data), news: msg.Header.Get(newsHeader)}, nil
}

// secret returns the word by which managers write, asked for at most once per
// connection.
func (s *stream) secret(ctx context.Context) (string, error) {
	f, err := s.recall(&s.word, func() (fact, error) {
		_, word, err := s.info(ctx)
		return fact{text: word}, err
	})
	return f.text, err
}

// wordFor returns the word by which a key is written.
func (s *stream) wordFor(ctx context.Context, key string) (string, error) {
	if bus.InScope(key, s.open()) {
		return openWord, nil
	}
	return s.secret(ctx)
}

// info asks for the stream's configuration, as managers may: its id and its
// secret word.
func (s *stream) info(ctx context.Context) (id, word string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := s.js.Stream(ctx, s.stream())
	if err != nil {
		return "", "", fmt.Errorf("bus: asking for stream %s: %w", s.stream(), s.explain(err))
	}
	c := found.CachedInfo().Config
	if id = c.Metadata[metadataLog]; !wellFormed.MatchString(id) {
		return "", "", fmt.Errorf("bus: stream %s has no %s in its metadata, or not one of ours: it is not a keyturn log", s.stream(), metadataLog)
	}
	for _, subject := range c.Subjects {
		rest, _ := strings.CutPrefix(subject, s.written())
		if w, ok := strings.CutSuffix(rest, ".>"); ok && wellFormed.MatchString(w) {
			word = w
		}
	}
	if word == "" {
		return "", "", fmt.Errorf("bus: stream %s does not say where it is written: it is not a keyturn log of this version", s.stream())
	}
	return id, word, nil
}

// direct reads the newest message of a subject, as whoever may read that one
// subject does. Any copy of the stream may answer.
func (c *conn) direct(ctx context.Context, stream, subject string) (*nats.Msg, error) {
	msg, err := c.ask(ctx, "$JS.API.DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return nil, err
	}
	switch status := msg.Header.Get("Status"); status {
	case "":
		return msg, nil
	case "404":
		return nil, jetstream.ErrMsgNotFound
	default:
		return nil, fmt.Errorf("the server answers %s %s", status, msg.Header.Get("Description"))
	}
}
