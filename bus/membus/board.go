// SPDX-License-Identifier: Apache-2.0

package membus

import (
	"context"
	"iter"

	"github.com/keyturn/keyturn/bus"
)

// Board implements bus.Boarder.
func (l *Log) Board() bus.Board { return board{l.board} }

// A board is a log in which the newest writer wins.
type board struct{ log *Log }

// Put implements bus.Board.
func (b board) Put(ctx context.Context, key string, data []byte) error {
	if err := bus.CheckAppend(key, data); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	b.log.put(key, data)
	return nil
}

// Follow implements bus.Board.
func (b board) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	b.log.mu.Lock()
	if from.Log != b.log.id || from.Seq > b.log.seq {
		from = bus.Position{}
	}
	b.log.mu.Unlock()
	return b.log.Follow(ctx, scope, from)
}
