// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"iter"
)

// A Board holds the newest notice of every key: what replicas report, and what
// managers say once a minute. Unlike a [Log] it promises no durability, the
// newest writer wins, and an entry may be gone after a restart: whoever writes
// says it again now and then. Keys, sizes and scopes are those of a Log. It is
// safe for concurrent use.
type Board interface {
	// Put makes data the key's notice. It may be on its way still when Put
	// returns.
	Put(ctx context.Context, key string, data []byte) error

	// Follow is a Log's Follow. A position that the board has lost is no error:
	// what it has is yielded again.
	Follow(ctx context.Context, scope string, from Position) iter.Seq2[Update, error]
}

// A Boarder is a Log with a board of the same tenant beside it.
type Boarder interface {
	Log
	Board() Board
}
