// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Errors of a connection that there is none of: it is a sequence of requests.
var (
	errClosed   = errors.New("the bus was closed")
	errNotAsked = errors.New("nothing was asked of the bus yet")
)

// call makes one request, with the SDK's retries, and takes down whether the bus
// was reached. It ends when Close is called.
func call[In, Out any](ctx context.Context, l *Log, do func(context.Context, *In, ...func(*api.Options)) (*Out, error), in *In) (*Out, error) {
	bound, end := l.bind(ctx)
	defer end()
	var failed error
	out, err := do(bound, in, remember(&failed))
	if err == nil {
		l.reached(nil)
		return out, nil
	}
	if cause := context.Cause(bound); cause != nil { // the caller's end, or Close
		if failed == nil {
			return nil, cause
		}
		return nil, &endedError{why: explain(l.api, l.table, failed), cause: cause}
	}
	err = explain(l.api, l.table, err)
	if answered(err) {
		l.reached(nil)
	} else {
		l.reached(err)
	}
	return nil, err
}

// An endedError is that a request was ended before it was answered, between attempts
// that failed.
type endedError struct {
	why   error // of the last attempt, explained
	cause error
}

func (e *endedError) Error() string   { return fmt.Sprintf("%v (%v)", e.why, e.cause) }
func (e *endedError) Unwrap() []error { return []error{e.why, e.cause} }

// remember has a request keep what its last attempt failed with: where it is ended
// while it waits for the next one, the SDK tells of the waiting alone.
func remember(failed *error) func(*api.Options) {
	return func(o *api.Options) {
		if r, ok := o.Retryer.(aws.RetryerV2); ok {
			o.Retryer = remembering{r, failed}
		}
	}
}

type remembering struct {
	aws.RetryerV2
	failed *error
}

// IsErrorRetryable implements aws.Retryer.
func (r remembering) IsErrorRetryable(err error) bool {
	*r.failed = err
	return r.RetryerV2.IsErrorRetryable(err)
}

// bind returns a context that ends with ctx and when the log is closed.
func (l *Log) bind(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		cancel(errClosed)
	}
	l.calls[&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.calls, &cancel)
	}
}

// Close ends the calls under way; later ones fail.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for cancel := range l.calls {
		(*cancel)(errClosed)
	}
}

// Connected asks for the tenant's log and returns nil if there is an answer,
// also the one that there is no such log yet, else why there is none.
func (l *Log) Connected(ctx context.Context) error {
	_, err := l.ask(ctx)
	_, said := errors.AsType[*endedError](err)
	switch {
	case err == nil, errors.Is(err, errNoLog):
		return nil
	case ctx.Err() != nil && !said:
		return fmt.Errorf("%s has not answered: are endpoint and region right, and can this host reach it?: %w", service(l.api), err)
	}
	return err
}

// Check returns nil if the last request was answered, else why it was not. A
// follower makes a request every few seconds.
func (l *Log) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errClosed
	case !l.asked:
		return errNotAsked
	case l.failed != nil:
		return fmt.Errorf("the bus cannot be reached: %w", l.failed)
	}
	return nil
}

// reached takes down how the last request ended.
func (l *Log) reached(err error) {
	l.mu.Lock()
	before := l.failed
	l.asked, l.failed = true, err
	l.mu.Unlock()
	switch {
	case before == nil && err != nil:
		l.logger.Warn("the bus cannot be reached; trying on", "table", l.table, "error", err)
	case before != nil && err == nil:
		l.logger.Info("the bus is reached again", "table", l.table)
	}
}

// answered reports whether an error is an answer to the request, whatever it is,
// and not that the service is overloaded, away or without our table.
func answered(err error) bool {
	if isMissingTable(err) || throttled(err) {
		return false
	}
	r, ok := errors.AsType[*smithyhttp.ResponseError](err)
	return ok && r.HTTPStatusCode()/100 == 4
}

func throttled(err error) bool {
	a, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	switch a.ErrorCode() {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded":
		return true
	}
	return false
}

func isMissingTable(err error) bool {
	_, ok := errors.AsType[*types.ResourceNotFoundException](err)
	return ok
}
