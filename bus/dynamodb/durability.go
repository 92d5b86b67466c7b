// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/keyturn/keyturn/bus"
)

var (
	_ bus.Durable = (*Log)(nil)
	_ bus.Counter = (*Log)(nil)
)

// followed is the first part of the keys that replicas follow.
const followed = "group"

// Durability implements bus.Durable. DynamoDB acknowledges what it has written in
// more than one place, and has no setting that would make that less.
func (l *Log) Durability(ctx context.Context) (*bus.Durability, error) {
	id, err := l.ask(ctx)
	if err != nil {
		return nil, err
	}
	newest, err := l.head(ctx, l.space.order(followed), true)
	if err != nil {
		return nil, fmt.Errorf("bus: asking for the newest entry of %q: %w", followed, err)
	}
	return &bus.Durability{Engine: "DynamoDB", Log: id, Head: newest.seq, Reduced: []bus.Reduction{}}, nil
}

// Count implements bus.Counter. It costs half a read unit for every thirty keys or so.
func (l *Log) Count(ctx context.Context, parts []string) (map[string]uint64, error) {
	counts := make(map[string]uint64, len(parts))
	for _, part := range parts {
		n, err := l.count(ctx, l.space.order(part))
		if err != nil {
			return nil, fmt.Errorf("bus: counting the keys of %q: %w", part, err)
		}
		counts[part] = n
	}
	return counts, nil
}

// count returns the number of rows in a feed.
func (l *Log) count(ctx context.Context, feed string) (n uint64, err error) {
	in := l.rowQuery(feed, 0, ^uint64(0))
	in.Select, in.ConsistentRead = types.SelectCount, nil
	for {
		out, err := call(ctx, l, l.api.Query, in)
		if err != nil {
			return 0, err
		}
		n += uint64(out.Count)
		if out.LastEvaluatedKey == nil {
			return n, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}
