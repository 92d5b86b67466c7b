// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// newsHeader stands in the message that tells a stream's id, where the server
// republishes what is appended to the stream: what the subjects start with at
// which that is heard.
const newsHeader = "Keyturn-News"

// republished has the server say each new entry once more, to whoever listens:
// that costs it as much as any message, and keeps nothing for those who do.
func (n names) republished() *jetstream.RePublish {
	return &jetstream.RePublish{Source: n.kept() + ">", Destination: n.news() + ">"}
}

// republish makes a stream of an earlier version one whose entries are
// republished, if this user may, and returns what the subjects start with at
// which they are heard, "" if they are not.
func (s *stream) republish(ctx context.Context) (news string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := s.js.Stream(ctx, s.stream())
	if err != nil {
		return "", fmt.Errorf("bus: asking for stream %s: %w", s.stream(), s.explain(err))
	}
	config := found.CachedInfo().Config
	want := s.republished()
	if has := config.RePublish; has != nil && *has == *want {
		return s.news(), nil
	}
	if !s.user.may("$JS.API.STREAM.UPDATE." + s.stream()) {
		return "", nil
	}
	config.RePublish = want
	_, err = s.js.UpdateStream(ctx, config)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrPermissionViolation) {
		return "", nil // the server does not answer what it does not allow
	}
	if err != nil {
		return "", fmt.Errorf("bus: having what is appended to stream %s republished: %w", s.stream(), s.explain(err))
	}
	return s.news(), nil
}
