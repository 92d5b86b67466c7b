// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/keyturn/keyturn/bus"
)

// A Log is a tenant's log, and its board. It is safe for concurrent use.
type Log struct {
	api    *api.Client
	table  string
	space  space
	logger *slog.Logger

	mu     sync.Mutex
	id     string                                // guarded by mu; the log id, "" until it was asked for
	asked  bool                                  // guarded by mu; whether there was an answer or a failure
	failed error                                 // guarded by mu; why the last request got no answer
	closed bool                                  // guarded by mu
	calls  map[*context.CancelCauseFunc]struct{} // guarded by mu; what Close ends
	lanes  map[string]*lane                      // guarded by mu; by partition of the order
}

var _ bus.Conn = (*Log)(nil)

// errNoLog says that the table has nothing of the tenant.
var errNoLog = errors.New("the table has no log of this tenant: a manager makes it at its start")

// Create makes the tenant's log if known is empty and there is none, and returns
// the log id. A known id is one that an earlier Create returned: if the log is
// gone then, or is another one, it was lost, and Create says so instead of going
// on with an empty one. The table is there already: Init makes it.
func (l *Log) Create(ctx context.Context, known string) (id string, err error) {
	id, err = l.ask(ctx)
	missing := errors.Is(err, errNoLog)
	switch {
	case missing && known == "":
		if err := l.create(ctx); err != nil {
			return "", err
		}
		return l.ask(ctx)
	case missing || known != "" && isMissingTable(err):
		return "", fmt.Errorf("%w: the log %s of tenant %q is gone from table %s: restore the table", bus.ErrPosition, known, l.space, l.table)
	case err != nil:
		return "", err
	case known != "" && id != known:
		return "", fmt.Errorf("%w: table %s holds log %s of tenant %q, not %s: restore the table", bus.ErrPosition, l.table, id, l.space, known)
	}
	return id, nil
}

// create draws a log id, if no other manager has done so.
func (l *Log) create(ctx context.Context) error {
	i := l.space.meta()
	i[attrLog] = str(rand.Text())
	_, err := call(ctx, l, l.api.PutItem, &api.PutItemInput{
		TableName:           &l.table,
		Item:                i,
		ConditionExpression: aws.String("attribute_not_exists(pk)"),
	})
	if _, lost := errors.AsType[*types.ConditionalCheckFailedException](err); err == nil || lost {
		return nil
	}
	return fmt.Errorf("bus: making the log of tenant %q: %w", l.space, err)
}

// known returns the log id, asking for it once.
func (l *Log) known(ctx context.Context) (string, error) {
	l.mu.Lock()
	id := l.id
	l.mu.Unlock()
	if id != "" {
		return id, nil
	}
	return l.ask(ctx)
}

// ask asks for the log id.
func (l *Log) ask(ctx context.Context) (string, error) {
	out, err := call(ctx, l, l.api.GetItem, &api.GetItemInput{
		TableName: &l.table, Key: l.space.meta(), ConsistentRead: aws.Bool(true),
	})
	if err == nil && text(out.Item, attrLog) == "" {
		err = errNoLog
	}
	var id string
	if err == nil {
		id = text(out.Item, attrLog)
	}
	l.mu.Lock()
	l.id = id
	l.mu.Unlock()
	if err != nil {
		return "", fmt.Errorf("bus: asking table %s for the log of tenant %q: %w", l.table, l.space, err)
	}
	return id, nil
}

// Get implements bus.Log.
func (l *Log) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	out, err := call(ctx, l, l.api.GetItem, &api.GetItemInput{
		TableName: &l.table, Key: l.space.entry(key), ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return bus.Entry{}, fmt.Errorf("bus: reading %s: %w", key, err)
	}
	if out.Item == nil {
		// Nothing is found in a log that is not there, either.
		if _, err := l.known(ctx); err != nil {
			return bus.Entry{}, err
		}
		return bus.Entry{}, bus.ErrNotFound
	}
	e := entryOf(out.Item)
	if len(e.Data) > bus.MaxData {
		return bus.Entry{}, fmt.Errorf("bus: reading %s: %w", key, bus.ErrTooLarge)
	}
	return e, nil
}

func entryOf(i item) bus.Entry {
	return bus.Entry{
		Key:      text(i, attrSK),
		Data:     bytesOf(i, attrPayload),
		Position: bus.Position{Log: text(i, attrLog), Seq: number(i, attrSeq)},
	}
}
