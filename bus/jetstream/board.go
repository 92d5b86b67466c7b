// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"fmt"
	"iter"

	"github.com/keyturn/keyturn/bus"
)

// A Board is a tenant's board, over the connection of its Log. It is safe for
// concurrent use.
type Board struct{ stream *stream }

// Put implements bus.Board. It does not wait for the server's answer: what is
// lost is said again.
func (b *Board) Put(ctx context.Context, key string, data []byte) error {
	if err := bus.CheckAppend(key, data); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	word, err := b.stream.wordFor(ctx, key)
	if err == nil {
		err = b.stream.nc.Publish(b.stream.target(word, key), data)
	}
	if err != nil {
		return fmt.Errorf("bus: writing %s to the board: %w", key, b.stream.explain(err))
	}
	return nil
}

// Follow implements bus.Board.
func (b *Board) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return b.stream.Follow(ctx, scope, from)
}
