// SPDX-License-Identifier: Apache-2.0

package lambda_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/lambda"
)

const (
	secretKey  = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"
	privateKey = "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n"
)

// childVariable makes this test's program a function of Lambda's: it says which.
const childVariable = "KEYTURN_TEST_LAMBDA"

// The library ends the process where Lambda expects it to, and so the function is a
// process of its own.
func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "":
		os.Exit(m.Run())
	case "serve":
		os.Exit(serve())
	case "start":
		if err := lambda.ReportStart(context.Background(), errors.New("no identity: "+privateKey)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(1)
	}
}

func serve() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := lambda.Serve(ctx, pass); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return 0
}

// pass does what "max" says, which is no way to use it but here.
func pass(ctx context.Context, e lambda.Event) (any, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("the context has no deadline")
	}
	switch e.Max {
	case 1:
		return nil, fmt.Errorf("issuer: https://user:hunter2@ca.example.com refused %s and %s", privateKey, secretKey)
	case 2:
		fmt.Fprintln(os.Stderr, "waiting") // TestStop waits for it
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond) // what a pass has in hand takes a while to end
		fmt.Fprintln(os.Stderr, "ended")
		return nil, ctx.Err()
	case 3:
		panic("at " + secretKey)
	case 4:
		return make(chan int), nil
	case 5:
		return deadline.UnixMilli(), nil
	}
	return map[string]any{"max": e.Max, "for": e.For.String()}, nil
}

func TestNotRunning(t *testing.T) {
	t.Setenv("AWS_LAMBDA_RUNTIME_API", "")
	if lambda.Running() {
		t.Error("Running where no variable is set")
	}
	if err := lambda.Serve(t.Context(), pass); err == nil || !strings.Contains(err.Error(), "AWS_LAMBDA_RUNTIME_API is not set") {
		t.Errorf("Serve = %v, want that the variable is not set", err)
	}
}

func TestRedact(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	t.Setenv("AWS_SESSION_TOKEN", "")
	for in, want := range map[string]string{
		"":                                              "",
		"cert.pem: not found":                           "cert.pem: not found",
		"a " + privateKey + " b":                        "a [redacted]\n b",
		"a -----BEGIN EC PRIVATE KEY---":                "a -----BEGIN EC PRIVATE KEY---",
		"a -----BEGIN EC PRIVATE KEY-----\nMC4C":        "a [redacted]",
		"-----BEGIN CERTIFICATE-----\nMII":              "-----BEGIN CERTIFICATE-----\nMII",
		"nats://a:b@c.example:4222, https://t@d/e?f=@g": "nats://[redacted]@c.example:4222, https://[redacted]@d/e?f=@g",
		"mail a@b.example about https://c/":             "mail a@b.example about https://c/",
		"signed with " + secretKey:                      "signed with [redacted]",
	} {
		if got := lambda.Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}
