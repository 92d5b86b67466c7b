// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/keyturn/keyturn/bus"
)

// keep is how long a notice is kept that is not said again. DynamoDB deletes it
// within a few days after that.
const keep = 30 * 24 * time.Hour

// Board implements bus.Boarder.
func (l *Log) Board() bus.Board { return board{l} }

type board struct{ log *Log }

// Put implements bus.Board.
func (b board) Put(ctx context.Context, key string, data []byte) error {
	if err := bus.CheckAppend(key, data); err != nil {
		return err
	}
	now := time.Now()
	i := at(b.log.space.board(key), key)
	i[attrPayload] = blob(data)
	i[attrBoard] = str(b.log.space.boardIndexed(key))
	i[attrChanged] = num(uint64(now.UnixMicro()))
	i[attrExpires] = num(uint64(now.Add(keep).Unix()))
	if _, err := call(ctx, b.log, b.log.api.PutItem, &api.PutItemInput{TableName: &b.log.table, Item: i}); err != nil {
		return fmt.Errorf("bus: putting %s on the board: %w", key, err)
	}
	return nil
}

// Follow implements bus.Board. It always yields all that is there first, since
// what it goes by are the clocks of many hosts. Where the scope lies in one
// partition, that is read; else the index of the whole board is, which has the
// keys, and then the notices that changed.
func (b board) Follow(ctx context.Context, scope string, _ bus.Position) iter.Seq2[bus.Update, error] {
	return b.log.stream(ctx, scope, func(ctx context.Context, yield func(bus.Update) bool) error {
		f := &boardFollower{log: b.log, scope: scope, seen: make(map[string]uint64), last: bus.Position{Log: boardIndex}, yield: yield}
		look := f.lookAtIndex
		if depth(scope) >= boardDepth(scope) {
			look = f.lookAtPartition
		}
		return poll(ctx, minBoardPoll, look, func() bool {
			return yield(bus.Update{Entry: bus.Entry{Position: f.last}, CaughtUp: true})
		})
	})
}

// A boardFollower is one call of Follow.
type boardFollower struct {
	log   *Log
	scope string
	seen  map[string]uint64 // when what was yielded last was put, by key
	last  bus.Position
	yield func(bus.Update) bool
}

// lookAtPartition yields what changed in the scope's own partition.
func (f *boardFollower) lookAtPartition(ctx context.Context, _ bool) (changed bool, err error) {
	in := f.query(attrPK, f.log.space.board(f.scope))
	in.ConsistentRead = aws.Bool(true)
	for items, err := range f.pages(ctx, in) {
		if err != nil {
			return changed, err
		}
		for _, i := range items {
			news, err := f.show(i)
			if err != nil {
				return changed, err
			}
			changed = changed || news
		}
	}
	return changed, nil
}

// lookAtIndex yields what changed, by the index of the board.
func (f *boardFollower) lookAtIndex(ctx context.Context, _ bool) (changed bool, err error) {
	in := f.query(attrBoard, f.log.space.boardIndexed(f.scope))
	in.IndexName = aws.String(boardIndex)
	there := make(map[string]bool)
	for items, err := range f.pages(ctx, in) {
		if err != nil {
			return changed, err
		}
		var keys []item
		for _, i := range items {
			key := text(i, attrSK)
			there[key] = true
			if number(i, attrChanged) != f.seen[key] {
				keys = append(keys, at(f.log.space.board(key), key))
			}
		}
		for batch := range slices.Chunk(keys, maxBatch) {
			notices, err := f.log.read(ctx, batch)
			if err != nil {
				return changed, err
			}
			for _, i := range notices {
				news, err := f.show(i)
				if err != nil {
					return changed, err
				}
				changed = changed || news
			}
		}
	}
	for key := range f.seen {
		if !there[key] {
			delete(f.seen, key)
		}
	}
	return changed, nil
}

// show yields a notice that was not yielded yet.
func (f *boardFollower) show(i item) (news bool, err error) {
	key, put, data := text(i, attrSK), number(i, attrChanged), bytesOf(i, attrPayload)
	if old, ok := f.seen[key]; ok && old == put || len(data) > bus.MaxData {
		return false, nil
	}
	f.seen[key] = put
	f.last = bus.Position{Log: boardIndex, Seq: put}
	if !f.yield(bus.Update{Entry: bus.Entry{Key: key, Data: data, Position: f.last}}) {
		return true, errStopped
	}
	return true, nil
}

// query asks for what lies in the scope under a partition key.
func (f *boardFollower) query(attr, value string) *api.QueryInput {
	return &api.QueryInput{
		TableName:                 &f.log.table,
		KeyConditionExpression:    aws.String(attr + " = :value AND begins_with(sk, :scope)"),
		ExpressionAttributeValues: item{":value": str(value), ":scope": str(f.scope)},
	}
}

// pages yields the items of the scope.
func (f *boardFollower) pages(ctx context.Context, in *api.QueryInput) iter.Seq2[[]item, error] {
	return func(yield func([]item, error) bool) {
		for {
			out, err := call(ctx, f.log, f.log.api.Query, in)
			if err != nil {
				yield(nil, err)
				return
			}
			items := slices.DeleteFunc(out.Items, func(i item) bool { return !bus.InScope(text(i, attrSK), f.scope) })
			if !yield(items, nil) || out.LastEvaluatedKey == nil {
				return
			}
			in.ExclusiveStartKey = out.LastEvaluatedKey
		}
	}
}
