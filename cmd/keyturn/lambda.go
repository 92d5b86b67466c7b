// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/lambda"
)

// maxInvocation is the longest that AWS Lambda lets a function run.
const maxInvocation = "15m"

// runLambda makes a pass for each event that AWS Lambda hands over: what
// "keyturn renew --due" does, configured by variables alone.
func runLambda(ctx context.Context) error {
	if err := checkLambda(); err != nil {
		return errors.Join(err, lambda.ReportStart(ctx, err))
	}
	return lambda.Serve(ctx, func(ctx context.Context, e lambda.Event) (any, error) {
		args := []string{"renew", "--due", "--output", "json", "--timeout", maxInvocation}
		if e.Max > 0 {
			args = append(args, "--max", strconv.Itoa(e.Max))
		}
		if limit := passLimit(ctx, e.For); limit > 0 {
			args = append(args, "--for", limit.String())
		}
		var out bytes.Buffer
		log := redacted{os.Stderr}
		if _, err := execute(ctx, args, strings.NewReader(""), &out, log); err != nil {
			_, _ = out.WriteTo(log) // what became of each certificate; that it failed is reported
			return nil, err
		}
		return json.RawMessage(out.Bytes()), nil
	})
}

// A redacted is a writer of lines that tells no secret.
type redacted struct{ to io.Writer }

func (r redacted) Write(line []byte) (int, error) {
	if _, err := io.WriteString(r.to, lambda.Redact(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// checkLambda refuses variables with which no pass can ever succeed, before there
// is one.
func checkLambda() error {
	cmd := newRenew()
	if busURL(cmd) == "" {
		return errors.New("there is no bus: set KEYTURN_BUS, such as dynamodb://TABLE, and KEYTURN_IDENTITY")
	}
	if _, err := namedAs(cmd); err != nil {
		return err
	}
	_, err := passCheckIn(cmd)
	return err
}

// forCheckIn is kept of an invocation for what comes after the pass.
const forCheckIn = 15 * time.Second

// passLimit is for how long renewals are begun: as long as the event says, or
// most of the invocation.
func passLimit(ctx context.Context, asked time.Duration) time.Duration {
	end, ok := ctx.Deadline()
	if asked > 0 || !ok {
		return asked
	}
	return max(time.Second, (time.Until(end) - forCheckIn).Truncate(time.Second))
}
