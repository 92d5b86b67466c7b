// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/internal/durable"
)

// credentials is the path of a NATS credentials file. It is read at every
// attempt to connect, so that it may be replaced. (nats.UserCredentials would
// expand "~" and "$" in the path.)
type credentials string

func (c credentials) read() ([]byte, error) {
	text, err := durable.ReadPrivate(string(c), 64<<10)
	if err != nil {
		return nil, fmt.Errorf("reading the bus credentials: %w", err)
	}
	return text, nil
}

// token returns the user's JWT.
func (c credentials) token() (string, error) {
	text, err := c.read()
	if err != nil {
		return "", err
	}
	defer clear(text)
	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil {
		return "", fmt.Errorf("reading the bus credentials %s: %w", string(c), err)
	}
	return token, nil
}

// sign signs the server's challenge.
func (c credentials) sign(nonce []byte) ([]byte, error) {
	text, err := c.read()
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading the bus credentials %s: %w", string(c), err)
	}
	defer key.Wipe()
	return key.Sign(nonce)
}

// A user is whom credentials are for. The zero value is one of whose rights
// nothing is known.
type user struct {
	public    string // key
	consumers string // what the names of his consumers start with; "" where he may choose
	rights    *jwt.Permissions
}

func (c credentials) user() (user, error) {
	token, err := c.token()
	if err != nil {
		return user{}, err
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return user{}, fmt.Errorf("reading the bus credentials %s: %w", string(c), err)
	}
	u := user{public: claims.Subject, rights: &claims.Permissions}
	for _, tag := range claims.Tags {
		if prefix, ok := strings.CutPrefix(tag, consumerTag); ok {
			u.consumers = prefix
		}
	}
	return u, nil
}

// may reports whether he may publish to a subject, as far as is known.
func (u user) may(subject string) bool {
	return u.rights == nil || len(u.rights.Pub.Allow) == 0 || contained(subject, u.rights.Pub.Allow)
}

// hears reports whether it is known that he may listen to a subject.
func (u user) hears(subject string) bool {
	return u.rights != nil && contained(subject, u.rights.Sub.Allow)
}

func contained(subject string, in jwt.StringList) bool {
	return slices.ContainsFunc(in, func(s string) bool { return jwt.Subject(subject).IsContainedIn(jwt.Subject(s)) })
}
