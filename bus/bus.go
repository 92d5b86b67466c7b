// SPDX-License-Identifier: Apache-2.0

// Package bus is the durable log that carries signed entries from managers to
// replicas. It is one interface, [Log]; the back ends are the packages below
// this one, and bustest is the conformance suite that each of them passes.
//
// A log holds opaque bytes under keys. Writers coordinate by optimistic
// locking and nothing else: [Log.Append] says which entry it replaces, so of
// two writers one wins and the other gets a [ConflictError]. Readers follow a
// scope, a leading part of the key. What is opaque here is signed and sealed
// above: nobody has to trust the bus with more than delivery, and whoever reads
// from it verifies.
package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Limits of every back end.
const (
	// MaxData is the longest entry, in bytes. DynamoDB's items end at 400 KB
	// and a NATS message by default at 1 MiB.
	MaxData = 256 << 10
	// MaxKey is the longest key, in bytes.
	MaxKey = 200
	// maxParts is the largest number of parts in a key.
	maxParts = 5
)

// Errors that callers branch on. Any other error of a Log means that the bus
// could not be asked: the same call may succeed later.
var (
	// ErrNotFound means that the key has no entry.
	ErrNotFound = errors.New("bus: no such key")
	// ErrPosition means that a position is not one of this log: it is another
	// log's, or above the head of one that was rolled back. A follower starts
	// again from the zero Position.
	ErrPosition = errors.New("bus: the position is not in this log: it was replaced or went back")
	// ErrTooLarge means that the data are longer than MaxData.
	ErrTooLarge = fmt.Errorf("bus: an entry has at most %d bytes", MaxData)
	// ErrKey means that a key or a scope is not well formed.
	ErrKey = errors.New("bus: malformed key")
)

// A ConflictError is returned by Append when the key's newest entry is not the
// one that the caller wanted to replace. Read it and decide anew.
type ConflictError struct {
	Key    string
	After  Position // what the caller expected to be the newest
	Newest Position // what is; zero where the back end does not tell
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("bus: conflict on %s: its newest entry is not %s any more", e.Key, e.After)
}

// A Position is a place in one log. It is opaque: compare it with ==, keep it,
// hand it back. The zero Position is the place before the first entry.
type Position struct {
	// Log identifies the log, so that the sequence of another one, or of the
	// same one after it was made anew, is not taken for this one's.
	Log string
	// Seq grows with every entry of a scope. It is no proof of order: a bus
	// that lost entries can give the same number out again.
	Seq uint64
}

// IsZero reports whether p is the place before the first entry.
func (p Position) IsZero() bool { return p == Position{} }

// String returns the text form, "LOG:SEQ", or "start" for the zero Position.
func (p Position) String() string {
	if p.IsZero() {
		return "start"
	}
	return p.Log + ":" + strconv.FormatUint(p.Seq, 10)
}

// ParsePosition parses what String returned.
func ParsePosition(s string) (Position, error) {
	if s == "start" {
		return Position{}, nil
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return Position{}, fmt.Errorf("bus: %q is not a position", s)
	}
	seq, err := strconv.ParseUint(s[i+1:], 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("bus: %q is not a position", s)
	}
	return Position{s[:i], seq}, nil
}

// An Entry is what stands under a key.
type Entry struct {
	Key      string
	Data     []byte
	Position Position
}

// An Update is what Follow yields: an entry, or once the mark that all entries
// there were at the start have been yielded.
type Update struct {
	Entry
	// CaughtUp marks the end of what was there already. Key and Data are empty
	// and Position is the place reached.
	CaughtUp bool
}

// A Log is the durable log. It is safe for concurrent use. Every call may be
// repeated after an error.
type Log interface {
	// Get returns the key's newest entry, or ErrNotFound. It sees every Append
	// that returned before the call, by whomever.
	Get(ctx context.Context, key string) (Entry, error)

	// Append makes data the key's newest entry if the newest one is at after,
	// the zero Position meaning that there is none; else it returns a
	// *ConflictError. When it returns nil, the entry survives a power cut.
	//
	// Where the bus failed half-way, the outcome is unknown; repeating the call
	// with the same arguments settles it: data equal to the key's newest entry
	// count as written, whatever after says. Two writers that must not be
	// taken for each other therefore never write equal bytes.
	Append(ctx context.Context, key string, after Position, data []byte) (Position, error)

	// Follow yields every key of the scope whose newest entry lies after from,
	// in the order of their positions, then one caught-up mark, then what is
	// appended from then on. Entries that were superseded may be missing. One that
	// was lost on its way comes when that is noticed, though it lies before others. It
	// ends with the first error: ErrPosition if from is not in this log,
	// ctx.Err() when ctx ends, or what the bus failed with; the follower then
	// follows again from the last position it took. The yielded data belong to
	// the caller.
	//
	// A scope is a key or its leading parts: "group/web" holds
	// "group/web/a" and not "group/website/a".
	Follow(ctx context.Context, scope string, from Position) iter.Seq2[Update, error]
}

// CheckKey returns ErrKey, with the reason, unless key is well formed: one to
// five parts of [A-Za-z0-9_-], joined by "/", at most MaxKey bytes. Scopes have
// the same form.
func CheckKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrKey, len(key), MaxKey)
	}
	parts := strings.Split(key, "/")
	if len(parts) > maxParts {
		return fmt.Errorf("%w: %q has more than %d parts", ErrKey, key, maxParts)
	}
	for _, p := range parts {
		if p == "" || strings.ContainsFunc(p, func(r rune) bool { return !wordRune(r) }) {
			return fmt.Errorf("%w: %q: a part is one or more of [A-Za-z0-9_-]", ErrKey, key)
		}
	}
	return nil
}

func wordRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_'
}

// CheckAppend returns the error that every back end gives for a key or data
// that no log takes.
func CheckAppend(key string, data []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(data) > MaxData {
		return fmt.Errorf("%w: %s has %d", ErrTooLarge, key, len(data))
	}
	return nil
}

// InScope reports whether key is scope or lies below it.
func InScope(key, scope string) bool {
	rest, ok := strings.CutPrefix(key, scope)
	return ok && (rest == "" || rest[0] == '/')
}
