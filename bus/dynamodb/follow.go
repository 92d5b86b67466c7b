// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/keyturn/keyturn/bus"
)

// Follow implements bus.Log by looking for new rows in the scope's feed. A
// position is good for the scope that it was got in, and for those above and
// below it that have the same first two parts.
func (l *Log) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return l.stream(ctx, scope, func(ctx context.Context, yield func(bus.Update) bool) error {
		return (&follower{log: l, scope: scope, at: from, yield: yield}).run(ctx)
	})
}

// A follower is one call of Follow.
type follower struct {
	log   *Log
	scope string
	feed  string
	at    bus.Position // the place reached
	all   bool         // it follows from the start
	yield func(bus.Update) bool
}

func (f *follower) run(ctx context.Context) error {
	id, err := f.log.ask(ctx)
	if err != nil {
		return err
	}
	if !f.at.IsZero() && f.at.Log != id {
		return bus.ErrPosition
	}
	f.all = f.at.IsZero()
	f.at.Log, f.feed = id, f.log.space.feed(f.scope)
	return poll(ctx, minPoll, f.look, func() bool {
		return f.yield(bus.Update{Entry: bus.Entry{Position: f.at}, CaughtUp: true})
	})
}

// maxLooks is how often look looks again before the mark.
const maxLooks = 50

// look yields what is new. The first time, and from the start, it looks until
// nothing is: an entry that is written again while its row is read stands behind
// where the look ends, and whoever makes a list shall have the whole.
func (f *follower) look(ctx context.Context, first bool) (changed bool, err error) {
	for looks := 1; ; looks++ {
		more, err := f.lookOnce(ctx, first)
		changed = changed || more
		if err != nil || !more || !first || !f.all || looks == maxLooks {
			return changed, err
		}
	}
}

// lookOnce asks for the newest row first and then for those
// up to it: all rows before a row that is there are there, but while one question
// is answered two transactions can come in, and the answer have the second alone.
//
// After the first time the newest row is asked for eventually consistently, at
// half the price: an answer that is late is another look's.
func (f *follower) lookOnce(ctx context.Context, first bool) (changed bool, err error) {
	head, err := f.log.head(ctx, f.feed, first)
	if err == nil && !first && head.seq < f.at.Seq {
		head, err = f.log.head(ctx, f.feed, true)
	}
	switch {
	case err != nil:
		return false, err
	case head.seq < f.at.Seq, head.seq > 0 && head.log != f.at.Log:
		return false, bus.ErrPosition
	case head.seq == f.at.Seq:
		return false, nil
	}
	for rows, err := range f.log.rows(ctx, f.feed, f.at.Seq+1, head.seq) {
		if err != nil {
			return false, err
		}
		rows = slices.DeleteFunc(rows, func(r row) bool { return !bus.InScope(r.key, f.scope) })
		for batch := range slices.Chunk(rows, maxBatch) {
			if err := f.deliver(ctx, batch); err != nil {
				return false, err
			}
		}
	}
	f.at.Seq = head.seq
	return true, nil
}

// deliver yields the entries of rows. One that stands at a later sequence by now
// has another row, which is still to come.
func (f *follower) deliver(ctx context.Context, rows []row) error {
	entries, err := f.log.entries(ctx, rows)
	if err != nil {
		return err
	}
	for _, r := range rows {
		e := entries[r.key]
		if e.Position.Seq > r.seq {
			continue
		}
		if len(e.Data) > bus.MaxData {
			return fmt.Errorf("%s: %w", r.key, bus.ErrTooLarge)
		}
		f.at.Seq = r.seq
		if !f.yield(bus.Update{Entry: e}) {
			return errStopped
		}
	}
	return nil
}

// head returns the newest row of a feed, or the zero row if it has none.
func (l *Log) head(ctx context.Context, feed string, consistent bool) (row, error) {
	in := l.rowQuery(feed, 0, ^uint64(0))
	in.ScanIndexForward, in.Limit, in.ConsistentRead = aws.Bool(false), aws.Int32(1), aws.Bool(consistent)
	out, err := call(ctx, l, l.api.Query, in)
	if err != nil || len(out.Items) == 0 {
		return row{}, err
	}
	return rowOf(out.Items[0])
}

// rows yields the rows of a feed from first to last, page by page.
func (l *Log) rows(ctx context.Context, feed string, first, last uint64) iter.Seq2[[]row, error] {
	return func(yield func([]row, error) bool) {
		for in := l.rowQuery(feed, first, last); ; {
			out, err := call(ctx, l, l.api.Query, in)
			if err != nil {
				yield(nil, err)
				return
			}
			page := make([]row, len(out.Items))
			for i := range out.Items {
				if page[i], err = rowOf(out.Items[i]); err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(page, nil) || out.LastEvaluatedKey == nil {
				return
			}
			in.ExclusiveStartKey = out.LastEvaluatedKey
		}
	}
}

func (l *Log) rowQuery(feed string, first, last uint64) *api.QueryInput {
	return &api.QueryInput{
		TableName:                 &l.table,
		KeyConditionExpression:    aws.String("pk = :feed AND sk BETWEEN :first AND :last"),
		ExpressionAttributeValues: item{":feed": str(feed), ":first": str(rowSK(first)), ":last": str(rowSK(last))},
		ConsistentRead:            aws.Bool(true),
	}
}
