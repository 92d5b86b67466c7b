// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// ErrToken means that a text is not a join token, or not all of it.
var ErrToken = errors.New("not a join token")

// tokenPrefix marks a join token and its version.
const tokenPrefix = "ktj1."

// tokenSecret is the length of a token's secret, in bytes.
const tokenSecret = 32

// A Token lets one host join a group, once and for a short time. It pins the
// managers' keys and the bus. It is a secret until it is used up, and prints as
// "[redacted]"; only Encode tells it.
type Token struct {
	// ID is that of the member to be.
	ID            string
	Tenant, Group string
	Expires       time.Time
	// Managers are the signing keys (seal.VerifyKey) that are trusted, and Serial
	// that of their set.
	Managers [][]byte
	Serial   uint64
	// URLs and Roots are BusInfo's.
	URLs  []string
	Roots [][]byte
	// Grant logs the host in to the bus, for joining alone; "" where the engine
	// knows no such thing.
	Grant string

	secret []byte
}

const (
	joinID tag = iota + 1
	joinTenant
	joinGroup
	joinExpires
	joinManager
	joinSerial
	joinURL
	joinRoot
	joinGrant
	joinSecret
)

func (t *Token) fields(f *codec) {
	f.string(joinID, &t.ID, maxWord)
	f.string(joinTenant, &t.Tenant, maxWord)
	f.string(joinGroup, &t.Group, maxWord)
	f.time(joinExpires, &t.Expires)
	f.blobs(joinManager, &t.Managers, MaxKeys)
	f.uint(joinSerial, &t.Serial)
	f.strings(joinURL, &t.URLs, maxURLs, maxURL)
	f.blobs(joinRoot, &t.Roots, MaxChain)
	f.string(joinGrant, &t.Grant, maxGrant)
	f.bytes(joinSecret, &t.secret)
}

// NewToken makes a token with a secret of 256 random bits and a new id. The
// caller fills in the rest.
func NewToken() *Token {
	t := &Token{ID: NewID(), secret: make([]byte, tokenSecret)}
	_, _ = rand.Read(t.secret) // never fails: see crypto/rand
	return t
}

// Format prints "[redacted]" whatever the verb.
func (Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// LogValue logs "[redacted]".
func (Token) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText encodes "[redacted]".
func (Token) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// SigningKey returns the key that signs the request, and whose public half
// managers keep.
func (t *Token) SigningKey() (*seal.SigningKey, error) {
	seed, err := t.derive("join request")
	if err != nil {
		return nil, err
	}
	return seal.NewSigningKey(seed)
}

// User returns the 32 secret bytes of the bus user that Grant is for.
func (t *Token) User() ([]byte, error) { return t.derive("join user") }

func (t *Token) derive(what string) ([]byte, error) {
	return hkdf.Key(sha256.New, t.secret, nil, "keyturn join token v1\x00"+what, 32)
}

// Trusted returns the managers' keys.
func (t *Token) Trusted() ([]*seal.VerifyKey, error) {
	var keys []*seal.VerifyKey
	for _, b := range t.Managers {
		k, err := seal.NewVerifyKey(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrToken, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Encode returns the text that ParseToken reads: "ktj1." and base64url, with a
// checksum, so that a cut one is told from a wrong one.
func (t *Token) Encode() string {
	b := encode(t)
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// ParseToken reads a token; space around and within it, as a terminal may add,
// does not matter. The error is ErrToken, with what is wrong, and never shows
// the text.
func ParseToken(text string) (*Token, error) {
	text = strings.Join(strings.Fields(text), "")
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return nil, fmt.Errorf("%w: it does not start with %q", ErrToken, tokenPrefix)
	}
	if len(rest) > 64<<10 {
		return nil, fmt.Errorf("%w: it is too long", ErrToken)
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(b) < 4 {
		return nil, fmt.Errorf("%w: it is cut or changed", ErrToken)
	}
	b, sum := b[:len(b)-4], b[len(b)-4:]
	if want := sha256.Sum256(b); !bytes.Equal(sum, want[:4]) {
		return nil, fmt.Errorf("%w: it is cut or changed", ErrToken)
	}
	t := new(Token)
	if err := decode(b, t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if len(t.secret) != tokenSecret || len(t.Managers) == 0 || len(t.URLs) == 0 {
		return nil, fmt.Errorf("%w: a part is missing", ErrToken)
	}
	if err := CheckName(t.Tenant); err != nil {
		return nil, fmt.Errorf("%w: the tenant: %w", ErrToken, err)
	}
	if err := checkMember(t.Group, t.ID); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if _, err := t.Trusted(); err != nil {
		return nil, err
	}
	return t, nil
}
