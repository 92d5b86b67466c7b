// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
)

// RevokeSubject is where managers ask the embedded server to take rights away.
func RevokeSubject(tenant string) string { return "ktrevoke." + tenant }

// RevokeDone is what the server answers when it is done.
const RevokeDone = "done"

// ErrNoRevocation means that nobody who runs the server takes revocations: it is
// not an embedded one.
var ErrNoRevocation = errors.New("bus: this server does not take revocations by itself: revoke the users in its account")

// maxRevocations is how many users are named in one message.
const maxRevocations = 1000

// Revoke has the server take from these users (public keys) what they were
// granted, for good, and returns when none of them gets in any more. Naming those
// who are revoked already does no harm. The error may be ErrNoRevocation.
func (l *Log) Revoke(ctx context.Context, users []string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for some := range slices.Chunk(users, maxRevocations) {
		answer, err := l.nc.RequestWithContext(ctx, RevokeSubject(l.stream.tenant), []byte(strings.Join(some, "\n")))
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			return ErrNoRevocation
		case err != nil:
			return fmt.Errorf("bus: revoking users: %w", l.explain(err))
		case string(answer.Data) != RevokeDone:
			return fmt.Errorf("bus: revoking users: %.200q", answer.Data)
		}
	}
	return nil
}
