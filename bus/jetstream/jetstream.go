// SPDX-License-Identifier: Apache-2.0

// Package jetstream is the bus over NATS JetStream: one stream per tenant,
// whose newest message per subject is the newest entry of a key.
//
// [Connect] or [ConnectDir] gives a [Log]; neither waits for the server, so
// that a program starts, and serves what it has, while the bus is down. A
// manager calls [Log.Create] once. Package embedded, below, runs the server in
// the same process.
//
// A key "group/web/ID" of tenant "default" is the subject
// "keyturn.default.group.web.ID._"; the closing "_" lets one filter,
// "keyturn.default.group.web.>", stand for a scope. The stream keeps one message
// per subject, and optimistic locking is JetStream's expected last sequence of
// the subject. A position's log id is drawn when the stream is made and lies in
// its metadata: a stream that was deleted and made again is another log.
//
// Entries survive a power cut only where the server runs with "sync_interval:
// always", as the embedded one does: by default NATS writes to the disk every
// two minutes.
package jetstream

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// requestTimeout bounds one request to the server.
const requestTimeout = 5 * time.Second

// A follower is a consumer. Whoever may follow may make as many as he likes:
// their number is bounded, and those that nobody listens to end.
const (
	maxConsumers = 10_000
	maxInactive  = 5 * time.Minute
)

// metadataLog is the key of the log id in the stream's metadata.
const metadataLog = "keyturn.log"

// wellFormed is what rand.Text makes. The metadata are the server's word.
var wellFormed = regexp.MustCompile(`^[A-Z2-7]{16,64}$`)

// StreamName returns the name of a tenant's stream.
func StreamName(tenant string) string { return "KEYTURN_" + tenant }

// SubjectPrefix returns what all subjects of a tenant start with.
func SubjectPrefix(tenant string) string { return "keyturn." + tenant + "." }

// Filter returns the filter subject of a scope.
func Filter(tenant, scope string) string {
	return SubjectPrefix(tenant) + strings.ReplaceAll(scope, "/", ".") + ".>"
}

func subject(tenant, key string) string {
	return SubjectPrefix(tenant) + strings.ReplaceAll(key, "/", ".") + "._"
}

func keyOf(tenant, subject string) (string, error) {
	s, ok := strings.CutPrefix(subject, SubjectPrefix(tenant))
	s, closed := strings.CutSuffix(s, "._")
	key := strings.ReplaceAll(s, ".", "/")
	if !ok || !closed {
		return "", fmt.Errorf("a message under the foreign subject %q", subject)
	}
	return key, bus.CheckKey(key)
}

// A Log is a tenant's log. It is safe for concurrent use.
type Log struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	tenant string

	// failed is why the last attempt to connect failed.
	failed atomic.Pointer[error]
	// denied is the last request that the server did not allow. It does not
	// answer such a request.
	denied atomic.Pointer[denial]

	mu    sync.Mutex
	known *known // guarded by mu; nil until the server was asked
}

// A denial is when and why a request was not allowed.
type denial struct {
	at  time.Time
	err error
}

// known is what the server said of the stream, good for one connection: after
// a reconnect it may be another server, or another stream.
type known struct {
	stream     jetstream.Stream
	id         string // the log id
	reconnects uint64
}

var _ bus.Log = (*Log)(nil)

// Connected returns when the connection stands, or with the reason why not when
// an attempt has failed or ctx ends.
func (l *Log) Connected(ctx context.Context) error {
	status := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer l.nc.RemoveStatusListener(status)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !l.nc.IsConnected() && !l.nc.IsClosed() && l.failed.Load() == nil && ctx.Err() == nil {
		select {
		case <-status:
		case <-tick.C: // a failed attempt has no channel
		case <-ctx.Done():
		}
	}
	return l.Check()
}

// Check returns nil if the connection stands at this moment, else why not.
func (l *Log) Check() error {
	if l.nc.IsConnected() {
		return nil
	}
	if failed := l.failed.Load(); failed != nil {
		return fmt.Errorf("not connected: %w", *failed)
	}
	return fmt.Errorf("not connected: %w", cmp.Or(l.nc.LastError(), errDisconnected))
}

// explain says in plain words what a request failed with that could not even
// be sent.
func (l *Log) explain(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		if why := l.Check(); why != nil {
			return why
		}
	}
	if d := l.denied.Load(); d != nil && time.Since(d.at) < 2*requestTimeout && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("these credentials do not allow it: %w", d.err)
	}
	return err
}

// Close ends the connection. Calls under way fail.
func (l *Log) Close() { l.nc.Close() }

// Create makes the tenant's stream if known is empty and there is none, and
// returns the log id. A known id is one that an earlier Create returned: if the
// stream is gone then, or is another one, the log was lost, and Create says so
// instead of going on with an empty one.
func (l *Log) Create(ctx context.Context, known string) (id string, err error) {
	id, _, err = l.info(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && known == "":
		if err := l.createPatiently(ctx); err != nil {
			return "", err
		}
		id, _, err = l.info(ctx)
		return id, err
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return "", fmt.Errorf("%w: stream %s, which held log %s, is gone: restore the server's data", bus.ErrPosition, StreamName(l.tenant), known)
	case err != nil:
		return "", err
	case known != "" && id != known:
		return "", fmt.Errorf("%w: stream %s holds log %s, not %s: restore the server's data", bus.ErrPosition, StreamName(l.tenant), id, known)
	}
	return id, nil
}

// createPatiently repeats what the server itself failed at: a server that has
// just started tidies its directories, and a stream made at that moment can
// find its own gone.
func (l *Log) createPatiently(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := l.create(ctx)
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.Code < 500 || attempt == 20 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (l *Log) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := l.js.CreateStream(ctx, jetstream.StreamConfig{
		Name:              StreamName(l.tenant),
		Description:       "Keyturn: the newest entry of every key",
		Subjects:          []string{SubjectPrefix(l.tenant) + ">"},
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxConsumers:      maxConsumers,
		ConsumerLimits:    jetstream.StreamConsumerLimits{InactiveThreshold: maxInactive},
		MaxMsgSize:        bus.MaxData + 4096, // and the headers
		Replicas:          1,
		DenyDelete:        true,
		DenyPurge:         true,
		Metadata:          map[string]string{metadataLog: rand.Text()},
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil // another manager was faster
	}
	if err != nil {
		return fmt.Errorf("bus: making stream %s: %w", StreamName(l.tenant), err)
	}
	return nil
}

// info asks for the log id and the newest sequence.
func (l *Log) info(ctx context.Context) (id string, head uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reconnects := l.nc.Stats().Reconnects
	s, err := l.js.Stream(ctx, StreamName(l.tenant))
	if err != nil {
		return "", 0, fmt.Errorf("bus: asking for stream %s: %w", StreamName(l.tenant), l.explain(err))
	}
	info := s.CachedInfo()
	id = info.Config.Metadata[metadataLog]
	if !wellFormed.MatchString(id) {
		return "", 0, fmt.Errorf("bus: stream %s has no %s in its metadata, or not one of ours: it is not a keyturn log", StreamName(l.tenant), metadataLog)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = &known{s, id, reconnects}
	return id, info.State.LastSeq, nil
}

// ask returns what is known of the stream, asking for it if need be.
func (l *Log) ask(ctx context.Context) (*known, error) {
	for {
		l.mu.Lock()
		k := l.known
		l.mu.Unlock()
		if k != nil && k.reconnects == l.nc.Stats().Reconnects {
			return k, nil
		}
		if _, _, err := l.info(ctx); err != nil {
			return nil, err
		}
	}
}

// Get implements bus.Log.
func (l *Log) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	k, err := l.ask(ctx)
	if err != nil {
		return bus.Entry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// The stream denies direct gets, which any copy of it may answer, so that
	// this is the leader's answer.
	msg, err := k.stream.GetLastMsgForSubject(ctx, subject(l.tenant, key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return bus.Entry{}, bus.ErrNotFound
	}
	if err != nil {
		return bus.Entry{}, fmt.Errorf("bus: reading %s: %w", key, l.explain(err))
	}
	if len(msg.Data) > bus.MaxData {
		return bus.Entry{}, fmt.Errorf("bus: reading %s: %w", key, bus.ErrTooLarge)
	}
	return bus.Entry{Key: key, Data: msg.Data, Position: bus.Position{Log: k.id, Seq: msg.Sequence}}, nil
}

// Append implements bus.Log. Where the server does not answer, it asks what
// became of the entry and tries again until ctx ends.
func (l *Log) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if err := bus.CheckAppend(key, data); err != nil {
		return bus.Position{}, err
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		p, err := l.publish(ctx, key, after, data)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, errUnknownOutcome) && !wrongLast(err) {
			return bus.Position{}, fmt.Errorf("bus: writing %s: %w", key, err)
		}
		newest, getErr := l.Get(ctx, key)
		switch {
		case getErr == nil && bytes.Equal(newest.Data, data):
			return newest.Position, nil
		case wrongLast(err) && (getErr == nil || errors.Is(getErr, bus.ErrNotFound)):
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
	k, err := l.ask(ctx)
	if err != nil {
		return bus.Position{}, retryable(ctx, err)
	}
	if !after.IsZero() && after.Log != k.id {
		return bus.Position{}, errForeignAfter
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ack, err := l.js.PublishMsg(ctx, &nats.Msg{Subject: subject(l.tenant, key), Data: data},
		jetstream.WithExpectStream(StreamName(l.tenant)),
		jetstream.WithExpectLastSequencePerSubject(after.Seq),
		jetstream.WithRetryAttempts(0))
	if err != nil {
		return bus.Position{}, retryable(ctx, err)
	}
	return bus.Position{Log: k.id, Seq: ack.Sequence}, nil
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
