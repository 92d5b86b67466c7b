// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// RevokeSubject is where managers ask the embedded server to take rights away.
// Its last part is the secret word by which they write the tenant's log, as no
// rights stop whoever names a subject for an answer, or for what is delivered to
// him: he has to know it.
func RevokeSubject(tenant, word string) string { return "ktrevoke." + tenant + "." + word }

// MayRevoke returns nil if subject is one that a manager of its tenant knows. The
// connection needs the right to ask for the tenant's log.
func MayRevoke(ctx context.Context, nc *nats.Conn, subject string) error {
	parts := strings.Split(subject, ".")
	if len(parts) != 3 {
		return fmt.Errorf("bus: %q is not a subject of revocations", subject)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("bus: jetstream: %w", err)
	}
	tenant := parts[1]
	_, word, err := (&stream{conn: &conn{nc: nc, js: js}, names: names{tenant: tenant}}).info(ctx)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(parts[2]), []byte(word)) == 0 {
		return fmt.Errorf("bus: whoever asks to revoke users of tenant %s is none of its managers", tenant)
	}
	return nil
}

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
	if len(users) == 0 {
		return nil
	}
	word, err := l.stream.secret(ctx)
	if err != nil {
		return fmt.Errorf("bus: revoking users: %w", err)
	}
	for some := range slices.Chunk(users, maxRevocations) {
		answer, err := l.ask(ctx, RevokeSubject(l.stream.tenant, word), []byte(strings.Join(some, "\n")))
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
