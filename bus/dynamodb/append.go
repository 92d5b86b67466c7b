// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/keyturn/keyturn/bus"
)

// errBusy says that another writer was faster, or that the table is throttled:
// the same append has to be tried again.
var errBusy = errors.New("others are writing to the table")

// A write is an append under way.
type write struct {
	key    string
	after  bus.Position
	data   []byte
	digest [sha256.Size]byte
}

// A lane lets one append at a time give out the next sequence of an order: a
// process does not race with itself.
type lane struct {
	turn chan struct{} // holds one token
	head row           // who has the token: the newest row, as far as known; or zero
}

func (l *Log) lane(key string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	order := l.space.order(key)
	if l.lanes[order] == nil {
		l.lanes[order] = &lane{turn: make(chan struct{}, 1)}
	}
	return l.lanes[order]
}

// Append implements bus.Log: by one transaction, tried again until ctx ends
// while other writers are faster. Where an answer is lost the SDK repeats the
// transaction under the same token, by which DynamoDB knows it for ten minutes.
func (l *Log) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if err := bus.CheckAppend(key, data); err != nil {
		return bus.Position{}, err
	}
	w := write{key, after, data, sha256.Sum256(data)}
	lane := l.lane(key)
	select {
	case lane.turn <- struct{}{}:
	case <-ctx.Done():
		return bus.Position{}, ctx.Err()
	}
	defer func() { <-lane.turn }()
	for again := (backoff{}); ; {
		p, err := l.try(ctx, lane, w)
		if err != nil {
			lane.head = row{} // it may be another one by now
		}
		if !errors.Is(err, errBusy) {
			return p, err
		}
		if cause := again.wait(ctx); cause != nil {
			return bus.Position{}, fmt.Errorf("bus: writing %s: %w (%w)", key, err, cause)
		}
	}
}

// try makes one attempt.
func (l *Log) try(ctx context.Context, lane *lane, w write) (bus.Position, error) {
	id, err := l.known(ctx)
	if err != nil {
		return bus.Position{}, err
	}
	if !w.after.IsZero() && w.after.Log != id {
		return l.refuse(ctx, w)
	}
	if lane.head.seq == 0 || lane.head.seq < w.after.Seq {
		if lane.head, err = l.head(ctx, l.space.order(w.key), true); err != nil {
			return bus.Position{}, fmt.Errorf("bus: writing %s: %w", w.key, err)
		}
	}
	switch {
	case lane.head.seq != 0 && lane.head.log != id:
		return bus.Position{}, l.replaced(ctx, id)
	case lane.head.seq < w.after.Seq:
		return l.refuse(ctx, w)
	}
	next := row{seq: lane.head.seq + 1, log: id, key: w.key}
	_, err = call(ctx, l, l.api.TransactWriteItems, &api.TransactWriteItemsInput{
		TransactItems: l.transaction(w, lane.head, next),
	})
	if err == nil {
		lane.head = next
		return bus.Position{Log: id, Seq: next.seq}, nil
	}
	if lane.head.seq == 0 { // it may be that the log is another one by now
		if _, err := l.ask(ctx); err != nil {
			return bus.Position{}, err
		}
	}
	return settle(w, err)
}

// refuse is a conflict that is known without trying, unless the data are there
// already.
func (l *Log) refuse(ctx context.Context, w write) (bus.Position, error) {
	newest, err := l.Get(ctx, w.key)
	switch {
	case err == nil && bytes.Equal(newest.Data, w.data):
		return newest.Position, nil
	case err == nil || errors.Is(err, bus.ErrNotFound):
		return bus.Position{}, &bus.ConflictError{Key: w.key, After: w.after, Newest: newest.Position}
	}
	return bus.Position{}, err
}

// replaced is what an append fails with whose rows are another log's than the
// one that was known: the next call asks anew.
func (l *Log) replaced(ctx context.Context, known string) error {
	id, err := l.ask(ctx)
	switch {
	case err != nil:
		return err
	case id != known:
		return errBusy
	}
	return fmt.Errorf("bus: table %s has rows of another log than %s, the one of tenant %q: restore the table", l.table, id, l.space)
}

// transaction is an append: the entry, and its row in each feed. Every row that
// the append before wrote is touched as well. DynamoDB applies a transaction item
// by item and refuses another one that touches an item which waits for that; so
// when this one is there, all rows before it are.
func (l *Log) transaction(w write, head, next row) []types.TransactWriteItem {
	items := []types.TransactWriteItem{l.putEntry(w, next)}
	for _, feed := range l.space.feeds(w.key) {
		items = append(items, types.TransactWriteItem{Put: &types.Put{
			TableName: &l.table, Item: next.item(feed), ConditionExpression: aws.String("attribute_not_exists(pk)"),
		}})
		if w.after.Seq != 0 && w.after.Seq != head.seq {
			items = append(items, types.TransactWriteItem{Delete: &types.Delete{
				TableName: &l.table, Key: at(feed, rowSK(w.after.Seq)),
			}})
		}
	}
	if head.seq == 0 {
		return append(items, l.touch(l.space.meta(), next.log, sameLog, false))
	}
	for i, feed := range l.space.feeds(head.key) {
		condition := sameLog
		if i > 0 {
			condition = sameLogIfAny
		}
		items = append(items, l.touch(at(feed, rowSK(head.seq)), next.log, condition, w.after.Seq == head.seq))
	}
	return items
}

// Conditions of what an append touches. The head's row in the order has to be
// there, and this log's. That its other row is missing is what a restored table
// can look like, and no reason not to go on.
const (
	sameLog      = "logid = :id"
	sameLogIfAny = "attribute_not_exists(pk) OR logid = :id"
)

func (l *Log) touch(key item, id, condition string, remove bool) types.TransactWriteItem {
	values := item{":id": str(id)}
	if remove {
		return types.TransactWriteItem{Delete: &types.Delete{
			TableName: &l.table, Key: key, ConditionExpression: &condition, ExpressionAttributeValues: values,
		}}
	}
	return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
		TableName: &l.table, Key: key, ConditionExpression: &condition, ExpressionAttributeValues: values,
	}}
}

// putEntry is the first item of a transaction: the condition that the contract
// is about, which answers with the entry that is there.
func (l *Log) putEntry(w write, next row) types.TransactWriteItem {
	i := l.space.entry(w.key)
	i[attrLog], i[attrSeq] = str(next.log), num(next.seq)
	i[attrPayload], i[attrDigest] = blob(w.data), blob(w.digest[:])
	put := &types.Put{
		TableName: &l.table, Item: i,
		ConditionExpression:                 aws.String("attribute_not_exists(pk)"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if !w.after.IsZero() {
		put.ConditionExpression = aws.String("seq = :seq AND logid = :id AND digest <> :digest")
		put.ExpressionAttributeValues = item{":seq": num(w.after.Seq), ":id": str(next.log), ":digest": blob(w.digest[:])}
	}
	return types.TransactWriteItem{Put: put}
}

// Reasons why DynamoDB cancels a transaction, of one item.
const (
	reasonNone      = "None"
	reasonCondition = "ConditionalCheckFailed"
	reasonConflict  = "TransactionConflict"
	reasonCapacity  = "ProvisionedThroughputExceeded"
	reasonThrottled = "ThrottlingError"
)

// settle says what became of a transaction that failed.
func settle(w write, err error) (bus.Position, error) {
	canceled, ok := errors.AsType[*types.TransactionCanceledException](err)
	if !ok || len(canceled.CancellationReasons) == 0 {
		return bus.Position{}, fmt.Errorf("bus: writing %s: %w", w.key, err)
	}
	first := canceled.CancellationReasons[0]
	if aws.ToString(first.Code) == reasonCondition {
		if bytes.Equal(bytesOf(first.Item, attrDigest), w.digest[:]) {
			return entryOf(first.Item).Position, nil
		}
		return bus.Position{}, &bus.ConflictError{Key: w.key, After: w.after, Newest: entryOf(first.Item).Position}
	}
	for _, r := range canceled.CancellationReasons {
		switch aws.ToString(r.Code) {
		case reasonNone, reasonCondition, reasonConflict, reasonCapacity, reasonThrottled:
		default:
			return bus.Position{}, fmt.Errorf("bus: writing %s: %w", w.key, err)
		}
	}
	return bus.Position{}, errBusy
}
