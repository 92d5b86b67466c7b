// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

func TestDriver(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	open(t, url, "acme")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, bus.URLFile), []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := bus.OpenDir(dir, bus.Options{Tenant: "acme", Name: "host-1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err == nil {
		t.Error("Check knows that the bus is reached before anything was asked")
	}
	if err := c.Connected(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	p := write(t, c, "state/a", bus.Position{}, "a")

	following := make(chan struct{})
	ended := make(chan error)
	go func() {
		var last error
		for u, err := range c.Follow(context.Background(), "state", p) {
			if u.CaughtUp {
				close(following)
			}
			last = err
		}
		ended <- last
	}()
	<-following
	c.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "was closed") {
		t.Errorf("the follower ended with %v", err)
	}
	if _, err := c.Get(t.Context(), "state/a"); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("Get after Close: %v", err)
	}
	if err := c.Check(); err == nil {
		t.Error("Check says that a closed bus is reached")
	}
	c.Close()

	d, err := bus.DriverOf(url)
	if err != nil {
		t.Fatal(err)
	}
	if user, err := d.User(make([]byte, 32)); user != "" || err != nil {
		t.Errorf("User: %q, %v", user, err)
	}
	if creds, err := d.Credentials("grant", make([]byte, 32)); creds != nil || err != nil {
		t.Errorf("Credentials: %q, %v", creds, err)
	}
}

func TestUnreachable(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	l, err := dynamodb.Connect(dynamodb.Options{URL: "dynamodb://table?region=us-east-1&endpoint=http://127.0.0.1:1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Connected(t.Context()); err == nil {
		t.Fatal("it was reached")
	}
	if err := l.Check(); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("Check does not say where the bus was sought: %v", err)
	}
	var conflict *bus.ConflictError
	if _, err := l.Append(t.Context(), "state/a", bus.Position{}, nil); err == nil || errors.As(err, &conflict) {
		t.Errorf("Append: %v", err)
	}
	if _, err := l.Create(t.Context(), "KNOWN"); err == nil || errors.Is(err, bus.ErrPosition) {
		t.Errorf("Create took an unreachable log for a lost one: %v", err)
	}
}

func TestURLs(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	for url, want := range map[string]string{
		"dynamodb://keyturn?region=eu-central-1":                         "",
		"dynamodb://my_table.1?region=eu-central-1&endpoint=https://h:1": "",
		"dynamodb://keyturn":                                         "no AWS region",
		"dynamodb://keyturn?region=x&color=red":                      `"color"`,
		"dynamodb://keyturn?region=x&endpoint=h:1":                   "endpoint",
		"dynamodb://keyturn?region=x&endpoint=https://user:secret@h": "endpoint",
		"dynamodb://keyturn?profile=nonesuch":                        "nonesuch",
		"dynamodb://a":                                               `"a": DynamoDB wants 3 to 255`,
		"dynamodb://user:secret@keyturn":                             "form",
		"dynamodb://keyturn/x":                                       "form",
		"dynamodb://":                                                "form",
		"nats://keyturn":                                             "form",
		"dynamodb://%zz?region=x":                                    "form",
	} {
		l, err := dynamodb.Connect(dynamodb.Options{URL: url})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s: %v; want an error with %q", url, err, want)
		}
		if l != nil {
			l.Close()
		}
	}
	t.Setenv("AWS_REGION", "eu-west-1")
	if _, err := dynamodb.Connect(dynamodb.Options{URL: "dynamodb://keyturn"}); err != nil {
		t.Errorf("AWS_REGION is not honoured: %v", err)
	}
}
