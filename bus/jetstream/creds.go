// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/internal/durable"
)

// credentials are a NATS credentials file. It is read at every attempt to connect, so
// that it may be replaced. (nats.UserCredentials would expand "~" and "$" in the path.)
type credentials struct {
	path string

	mu   sync.Mutex
	sum  [sha256.Size]byte // guarded by mu; of the file that was parsed last
	last string            // guarded by mu; the JWT that was in it
}

func (c *credentials) read() ([]byte, error) {
	text, err := durable.ReadPrivate(c.path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("reading the bus credentials: %w", err)
	}
	return text, nil
}

// token returns the user's JWT.
func (c *credentials) token() (string, error) {
	text, err := c.read()
	if err != nil {
		return "", err
	}
	defer clear(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256(text)
	if c.last == "" || c.sum != sum {
		token, err := nkeys.ParseDecoratedJWT(text)
		if err != nil {
			return "", fmt.Errorf("reading the bus credentials %s: %w", c.path, err)
		}
		c.sum, c.last = sum, token
	}
	return c.last, nil
}

// sign signs the server's challenge.
func (c *credentials) sign(nonce []byte) ([]byte, error) {
	text, err := c.read()
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading the bus credentials %s: %w", c.path, err)
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

func (c *credentials) user() (user, error) {
	token, err := c.token()
	if err != nil {
		return user{}, err
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return user{}, fmt.Errorf("reading the bus credentials %s: %w", c.path, err)
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
