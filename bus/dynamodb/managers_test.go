// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestTenManagers lets ten writers race for the sequences of one order, to keys
// of three groups and over each other's, while followers of all and of one group
// come and go: nobody misses an entry or sees them out of order, and the race is
// not a storm.
func TestTenManagers(t *testing.T) {
	const managers, writes = 10, 12
	ctx, cancel := context.WithTimeout(t.Context(), bustest.Timeout)
	defer cancel()
	p := newProxy(t, dynamolocal.Shared(t))
	url := table(t, dynamolocal.Shared(t))

	var mu sync.Mutex
	final := make(map[string]string) // guarded by mu
	var writers, followers sync.WaitGroup
	for i := range managers {
		l := open(t, p.url(url), "")
		writers.Go(func() {
			at := make(map[string]bus.Position)
			for n := range writes {
				key := fmt.Sprintf("group/g%d/m%dk%d", n%3, i, n%4)
				data := fmt.Sprintf("%06d", n)
				pos, err := l.Append(ctx, key, at[key], []byte(data))
				if err != nil {
					t.Errorf("manager %d: %v", i, err)
					return
				}
				at[key] = pos
				mu.Lock()
				final[key] = data
				mu.Unlock()
			}
		})
	}
	seen := make([]map[string]string, 4)
	for i := range seen {
		seen[i] = make(map[string]string)
		scope := [...]string{"group", "group/g0"}[i%2]
		l := open(t, url, "")
		followers.Go(func() { followInPieces(t, ctx, l, scope, seen[i]) })
	}
	writers.Wait()
	last := open(t, url, "")
	write(t, last, "group/end", bus.Position{}, "end")
	write(t, last, "group/g0/end", bus.Position{}, "end")
	followers.Wait()

	for i, got := range seen {
		want := maps.Clone(final)
		if i%2 == 1 {
			maps.DeleteFunc(want, func(key, _ string) bool { return !bus.InScope(key, "group/g0") })
		}
		if !maps.Equal(got, want) {
			t.Errorf("follower %d has %d entries, %v; the log %d, %v", i, len(got), got, len(want), want)
		}
	}
	transactions := 0
	for _, r := range p.requests() {
		if r.operation == "TransactWriteItems" {
			transactions++
		}
	}
	t.Logf("%.2f transactions for an entry", float64(transactions)/(managers*writes))
	if transactions > 4*managers*writes {
		t.Errorf("%d transactions for %d entries", transactions, managers*writes)
	}
}

// followInPieces follows, a few updates at a time, until the end's entry.
func followInPieces(t *testing.T, ctx context.Context, l bus.Log, scope string, seen map[string]string) {
	var at bus.Position
	for n := 0; ; n++ {
		take := n % 7
		for u, err := range l.Follow(ctx, scope, at) {
			if err != nil {
				t.Errorf("following %s: %v", scope, err)
				return
			}
			if u.Position.Seq < at.Seq || !u.CaughtUp && u.Position.Seq == at.Seq {
				t.Errorf("%s: %v comes after %v", scope, u.Position, at)
			}
			at = u.Position
			if u.Key == "group/g0/end" {
				return
			}
			if !u.CaughtUp && u.Key != "group/end" {
				if old := seen[u.Key]; old >= string(u.Data) {
					t.Errorf("%s went from %s to %s", u.Key, old, u.Data)
				}
				seen[u.Key] = string(u.Data)
			}
			if take--; take < 0 {
				break
			}
		}
	}
}
