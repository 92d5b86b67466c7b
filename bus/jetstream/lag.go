// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// In a cluster a consumer reads one of the copies of its stream, which may not have
// come as far as the one that leads.

// clustered reports whether the server is one of several.
func (c *conn) clustered() bool { return c.nc.ConnectedClusterName() != "" }

// leads asks the copy that leads whether the scope has something after a sequence.
// Managers alone may ask that, and of the log.
func (s *stream) leads(ctx context.Context, scope string, after uint64) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := json.Marshal(map[string]any{"seq": after + 1, "next_by_subj": s.filter(scope)})
	if err != nil {
		return false, err
	}
	_, err = s.message(ctx, request)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// A message is what the copy that leads has.
type message struct {
	Seq  uint64 `json:"seq"`
	Data []byte `json:"data"`
}

// A cluster that has lost the server with the copy that leads needs four to nine seconds
// to choose another (nats-server's election timeouts). What is asked meanwhile is lost.
const (
	leaderPatience = 15 * time.Second
	leaderAsked    = 2 * time.Second
)

// patiently does what the copy that leads has to answer, and again in a cluster that has
// none at the moment. It has to be something that may be done twice.
func (s *stream) patiently(ctx context.Context, do func(context.Context) error) error {
	patience, each := requestTimeout, requestTimeout
	if s.clustered() {
		patience, each = leaderPatience, leaderAsked
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, each)
		err := do(once)
		cancel()
		if !noAnswer(err) || !s.clustered() {
			return err
		}
		s.answered(err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(behindWait):
		}
	}
}

// message asks the copy of the stream that leads, which has seen every append.
func (s *stream) message(ctx context.Context, request []byte) (*message, error) {
	answer, err := s.ask(ctx, "$JS.API.STREAM.MSG.GET."+s.stream(), request)
	if err != nil {
		return nil, err
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message message             `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return nil, fmt.Errorf("the server's answer: %w", err)
	}
	switch {
	case got.Error == nil:
		return &got.Message, nil
	case got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, jetstream.ErrMsgNotFound
	}
	return nil, got.Error
}

// complete reports whether the delivery's copy, which has no more, has what the one
// that leads has. Who may follow few keys may not ask, and is told a little later of
// what is missing.
func (d *delivery) complete(ctx context.Context) (bool, error) {
	if d.consumer.pin != nil || d.board || !d.clustered() || d.looks > maxLooks {
		return true, nil
	}
	d.looks++
	more, err := d.leads(ctx, d.scope, max(d.last, d.from))
	return !more && err == nil, err
}

// awaitHead returns nil when the stream has reached a sequence. The error is
// bus.ErrPosition if it has not, whatever copy is asked.
func (c *consumer) awaitHead(ctx context.Context, seq uint64) error {
	for step := 1; ; step++ {
		head, err := c.askHead(ctx)
		if err != nil || seq <= head {
			return err
		}
		if step > behindSteps || !c.clustered() {
			return bus.ErrPosition
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(behindWait):
		}
	}
}
