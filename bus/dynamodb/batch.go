// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/keyturn/keyturn/bus"
)

// maxBatch is how many entries are read at once: DynamoDB takes 100 keys.
const maxBatch = 100

// settleTime bounds how long a row can be there before its entry is: DynamoDB
// applies a transaction item by item, in milliseconds, or in seconds after a
// failure.
const settleTime = 15 * time.Second

// entries reads the entries of rows, at most maxBatch, and waits for those that
// are not applied yet.
func (l *Log) entries(ctx context.Context, rows []row) (map[string]bus.Entry, error) {
	entries := make(map[string]bus.Entry, len(rows))
	begun := time.Now()
	for again := (backoff{}); ; {
		late, err := l.fill(ctx, entries, rows)
		if err != nil || late == "" {
			return entries, err
		}
		if time.Since(begun) > settleTime {
			return nil, fmt.Errorf("%s does not stand where its row says: if the table was restored, write that entry again", late)
		}
		if err := again.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// fill reads the entries that are missing, or older than their rows, and returns
// the key of one that is so still.
func (l *Log) fill(ctx context.Context, entries map[string]bus.Entry, rows []row) (late string, err error) {
	behind := func(r row) bool { return entries[r.key].Position.Seq < r.seq }
	keys := make([]item, 0, len(rows))
	for _, r := range rows {
		if behind(r) {
			keys = append(keys, l.space.entry(r.key))
		}
	}
	items, err := l.read(ctx, keys)
	if err != nil {
		return "", err
	}
	for _, i := range items {
		e := entryOf(i)
		entries[e.Key] = e
	}
	if i := slices.IndexFunc(rows, behind); i >= 0 {
		return rows[i].key, nil
	}
	return "", nil
}

// read reads items by their keys, at most maxBatch.
func (l *Log) read(ctx context.Context, keys []item) ([]item, error) {
	var items []item
	for again := (backoff{}); len(keys) > 0; {
		out, err := call(ctx, l, l.api.BatchGetItem, &api.BatchGetItemInput{
			RequestItems: map[string]types.KeysAndAttributes{l.table: {Keys: keys, ConsistentRead: aws.Bool(true)}},
		})
		if err != nil {
			return nil, err
		}
		got := out.Responses[l.table]
		items = append(items, got...)
		// What did not fit into 16 MB, or was throttled.
		keys = out.UnprocessedKeys[l.table].Keys
		if len(got) == 0 && len(keys) > 0 {
			if err := again.wait(ctx); err != nil {
				return nil, err
			}
		}
	}
	return items, nil
}
