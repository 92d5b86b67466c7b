// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestExplainEnded holds that who waits no longer hears what the last attempt failed
// with, and not only that he waited.
func TestExplainEnded(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_MAX_ATTEMPTS", "100") // more than anybody waits for
	log, err := dynamodb.Connect(dynamodb.Options{URL: "dynamodb://nonesuch?region=" + dynamolocal.Region + "&endpoint=" + gone(t), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	enough := errors.New("waited long enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, enough)
	defer cancel()
	err = log.Connected(ctx)
	if !errors.Is(err, enough) || !strings.Contains(err.Error(), "does not answer") || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}

// gone returns the URL of an endpoint that nobody listens at.
func gone(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return "http://" + l.Addr().String()
}

// TestExplain holds that each error tells where the table was looked for, and
// what to do.
func TestExplain(t *testing.T) {
	gone := gone(t)
	refusing := func(code string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":"no"}`, code))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	there := dynamolocal.Shared(t).Endpoint
	for _, c := range []struct {
		name, endpoint, key string
		want                []string
	}{
		{"missing table", there, "test", []string{"no table nonesuch", there, "keyturn bus init dynamodb --table nonesuch"}},
		{"no credentials", there, "", []string{"no AWS credentials", "AWS_ACCESS_KEY_ID"}},
		{"nobody there", gone, "test", []string{gone + " (region us-east-1) does not answer", "connection refused"}},
		{"not allowed", refusing("AccessDeniedException"), "test", []string{"do not allow it", "docs/dynamodb.md"}},
		{"expired", refusing("ExpiredTokenException"), "test", []string{"does not take these AWS credentials", "(region us-east-1)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", c.key)
			url := "dynamodb://nonesuch?region=" + dynamolocal.Region + "&endpoint=" + c.endpoint
			log, err := dynamodb.Connect(dynamodb.Options{URL: url, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			failures := map[string]error{"Connected": log.Connected(t.Context())}
			if c.endpoint != there || c.key == "" {
				_, failures["Init"] = dynamodb.Init(t.Context(), url)
			}
			for who, err := range failures {
				if err == nil {
					t.Fatalf("%s: no error", who)
				}
				for _, part := range c.want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s: %v; want %q in it", who, err, part)
					}
				}
			}
		})
	}
}
