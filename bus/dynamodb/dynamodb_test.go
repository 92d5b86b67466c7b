// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"crypto/rand"
	"os"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

func TestMain(m *testing.M) { os.Exit(dynamolocal.Main(m)) }

// TestConformance runs on an emulator that writes to the disk, so that it can be
// restarted.
func TestConformance(t *testing.T) {
	s := dynamolocal.Start(t)
	bustest.Run(t, func(t *testing.T) bustest.Engine {
		e := engine(t, s)
		e.Restart = func(t *testing.T) { s.Restart(t) }
		return e
	})
}

func TestBoardConformance(t *testing.T) {
	bustest.RunBoard(t, func(t *testing.T) bustest.Engine {
		return engine(t, dynamolocal.Shared(t))
	})
}

// engine makes a table with two tenants.
func engine(t *testing.T, s *dynamolocal.Server) bustest.Engine {
	url := table(t, s)
	return bustest.Engine{
		Open:  func(t *testing.T) bus.Log { return open(t, url, "") },
		Other: func(t *testing.T) bus.Log { return open(t, url, "other") },
	}
}

// table makes a table of the test's own and returns its URL.
func table(t *testing.T, s *dynamolocal.Server) string {
	t.Helper()
	url := s.URL(rand.Text())
	if created, err := dynamodb.Init(t.Context(), url); err != nil || !created {
		t.Fatalf("made: %t, %v", created, err)
	}
	return url
}

// open returns a client of a tenant's log, which it makes.
func open(t *testing.T, url, tenant string) *dynamodb.Log {
	t.Helper()
	l, err := dynamodb.Connect(dynamodb.Options{URL: url, Tenant: tenant, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if _, err := l.Create(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return l
}
