// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/dynamolocal"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// TestFleet makes and renews a certificate over a table, from a manager to a host
// that joined by a token, and holds that host to its policies by all requests
// that it made, and the manager to its own.
func TestFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), bustest.Timeout)
	defer cancel()
	direct := table(t, dynamolocal.Shared(t))
	office, host := newProxy(t, dynamolocal.Shared(t)), newProxy(t, dynamolocal.Shared(t))
	policies := readPolicies(t)

	m := newManager(t, ctx, open(t, office.url(direct), ""))
	if err := m.SetBusInfo(ctx, &event.BusInfo{URLs: []string{host.url(direct)}}, nil); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		m.Run(running)
		close(ended)
	}()
	defer func() {
		stop()
		<-ended
	}()
	token, err := m.NewToken(ctx, manager.DefaultGroup, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	member, err := replica.Join(ctx, replica.JoinConfig{Token: token, Dir: dir, Name: "host-1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	obeys(t, host, policies, member.ID, "replica", "join")

	r, err := replica.Open(ctx, replica.Config{Dir: dir, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	made, err := m.Make(ctx, manager.Request{Names: []string{"www.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Wait(ctx, made.ID, made.Version, nil); err != nil {
		t.Fatal(err)
	}
	renewed, err := m.Renew(ctx, made.ID, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Wait(ctx, renewed.ID, renewed.Version, nil); err != nil {
		t.Fatal(err)
	}
	obeys(t, host, policies, member.ID, "replica")
	obeys(t, office, policies, "", "manager")
}

// newManager makes the first manager of a log, with the built-in CA and a group.
func newManager(t *testing.T, ctx context.Context, log bus.Log) *manager.Manager {
	t.Helper()
	identity, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := manager.New(manager.Config{
		Log: log, Identity: identity, Logger: quiet,
		Keys: func(string) ([]*seal.PrivateKey, error) { return []*seal.PrivateKey{key}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateConfig(ctx, []byte("default_issuer: internal\nissuers:\n  internal:\n    type: local\n"), bus.Position{}); err != nil {
		t.Fatal(err)
	}
	if err := m.AddGroup(ctx, manager.DefaultGroup, key.Public()); err != nil {
		t.Fatal(err)
	}
	return m
}

// obeys holds the requests of a proxy to policies of the docs, put in force for
// a member.
func obeys(t *testing.T, p *proxy, policies map[string]policy, member string, roles ...string) {
	t.Helper()
	var all policy
	for _, role := range roles {
		all = append(all, policies[role].of(manager.DefaultGroup, member)...)
	}
	asked := make(map[string]int)
	for _, r := range p.requests() {
		asked[r.operation]++
		if denied := all.denied(r); denied != "" {
			t.Errorf("a %v may not %s", roles, denied)
		}
	}
	if len(asked) == 0 {
		t.Errorf("a %v asked for nothing", roles)
	}
	t.Logf("%v: %v", roles, asked)
}

var quiet = slog.New(slog.DiscardHandler)
