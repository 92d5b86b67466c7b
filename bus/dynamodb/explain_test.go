// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestExplain holds that each error tells where the table was looked for, and
// what to do.
func TestExplain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
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
