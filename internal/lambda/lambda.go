// SPDX-License-Identifier: Apache-2.0

// Package lambda runs a function once for each event that AWS Lambda hands to this
// process. A program asks [Running] early, and calls [Serve] instead of reading its
// command line:
//
//	if lambda.Running() {
//		if err := start(ctx); err != nil {
//			return errors.Join(err, lambda.ReportStart(ctx, err))
//		}
//		return lambda.Serve(ctx, func(ctx context.Context, e lambda.Event) (any, error) { ... })
//	}
//
// The events are those of a schedule, of a test, or empty; see [Event].
package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambda/messages"
)

// apiVariable holds the address of the Runtime API where Lambda runs the process.
const apiVariable = "AWS_LAMBDA_RUNTIME_API"

// Types of errors, as they stand in "errorType" and in Lambda's metrics and log.
const (
	TypeFailed   = "Keyturn.PassFailed"     // the function returned an error
	TypeTimedOut = "Keyturn.PassTimedOut"   // it did so because its time was up
	TypeStopped  = "Keyturn.Stopped"        // it did so because the process is to end
	TypePanicked = "Keyturn.PassPanicked"   // the process ends, and Lambda starts another
	TypeEvent    = "Keyturn.EventMalformed" // the event could not be read
	TypeStart    = "Keyturn.StartFailed"    // of ReportStart
)

// A tenth of an invocation, and at most a second, is kept back to report its end: when
// its time is up, Lambda kills the process, and nothing tells why.
const (
	reserveShare = 10
	maxReserve   = time.Second
)

// Running reports whether this process is run by Lambda.
func Running() bool { return os.Getenv(apiVariable) != "" }

// Serve calls pass for each event, one at a time, until ctx ends, which is what SIGTERM
// should do; then it waits for the pass that runs, and returns nil. The context of
// a pass ends with ctx, and shortly before Lambda would kill the process. Whether a
// pass that SIGTERM ended is reported is not certain: Lambda sends the signal to a
// process that it is done with.
//
// What pass returns is encoded as JSON, and is the result of the invocation. An error is
// a function error: its text goes to the caller and to the log, without private keys
// and credentials, see [Redact].
//
// Serve may be called once, and the process must end when it returns. Where the Runtime
// API fails, the process is ended at once, with status 1, as Lambda expects.
func Serve(ctx context.Context, pass func(context.Context, Event) (any, error)) error {
	if !Running() {
		return fmt.Errorf("lambda: this process is not run by AWS Lambda: %s is not set", apiVariable)
	}
	h := &handler{pass: pass}
	// WithEnableSIGTERM makes Lambda send the signal; who catches it is ctx. The call never
	// returns: it ends the process, or this process ends.
	go lambda.StartWithOptions(h, lambda.WithContext(ctx), lambda.WithEnableSIGTERM())
	<-ctx.Done()
	h.running.Lock() // for good: no pass begins after this
	return nil
}

// A handler is what Lambda's library calls.
type handler struct {
	running sync.Mutex // held during a pass
	pass    func(context.Context, Event) (any, error)
}

var _ lambda.Handler = (*handler)(nil)

// Invoke implements lambda.Handler.
func (h *handler) Invoke(ctx context.Context, payload []byte) (response []byte, err error) {
	h.running.Lock()
	defer h.running.Unlock()
	defer func() {
		if v := recover(); v != nil {
			slog.Error("a pass panicked", "panic", Redact(fmt.Sprint(v)), "stack", string(debug.Stack()))
			failure := functionError(TypePanicked, fmt.Errorf("panic: %v", v))
			failure.ShouldExit = true
			err = failure
		}
	}()
	event, err := parseEvent(payload)
	if err != nil {
		return nil, functionError(TypeEvent, err)
	}
	ctx, cancel := reserve(ctx)
	defer cancel()
	result, err := h.pass(ctx, event)
	if err == nil {
		response, err = json.Marshal(result)
	}
	switch {
	case err == nil:
		return response, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, functionError(TypeStopped, err)
	case ctx.Err() != nil:
		return nil, functionError(TypeTimedOut, fmt.Errorf("the time of the invocation was up: give the function a longer timeout, or the event a lower max: %w", err))
	}
	return nil, functionError(TypeFailed, err)
}

// reserve returns a context that ends early enough for the end to be reported.
func reserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/reserveShare, maxReserve)))
}

func functionError(kind string, err error) messages.InvokeResponse_Error {
	return messages.InvokeResponse_Error{Type: kind, Message: Redact(err.Error())}
}

// An Event is what of an invocation's event counts here. Everything else in it is ignored:
// the events of EventBridge bring fields of their own.
type Event struct {
	// Max is how many certificates a pass may renew, "max": 20. Zero is no limit.
	Max int
	// For is how long a pass may take, "for": "2m". Zero is as long as the invocation.
	For time.Duration
}

// parseEvent reads an event, which may be empty, null, or a JSON object.
func parseEvent(payload []byte) (Event, error) {
	if len(payload) == 0 {
		return Event{}, nil
	}
	var raw struct {
		Max *int    `json:"max"`
		For *string `json:"for"`
	}
	if err := json.Unmarshal(payload, &raw); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			return Event{}, fmt.Errorf(`the event's field %q is a %s: want {"max": NUMBER, "for": "DURATION"}, each of which may be left out`, wrong.Field, wrong.Value)
		}
		return Event{}, fmt.Errorf("the event is not a JSON object: %w", err)
	}
	var e Event
	if raw.Max != nil {
		if e.Max = *raw.Max; e.Max < 1 {
			return Event{}, fmt.Errorf(`the event's field "max" is %d: want 1 or more, or no such field`, e.Max)
		}
	}
	if raw.For != nil {
		var err error
		if e.For, err = time.ParseDuration(*raw.For); err != nil || e.For <= 0 {
			return Event{}, fmt.Errorf(`the event's field "for" is %q: want a duration such as "90s" or "2m", or no such field`, *raw.For)
		}
	}
	return e, nil
}
