// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestSpoiltRequests spoils the first attempt of each kind of request, in each
// way: the SDK's second one has to do it, and no entry is written twice.
func TestSpoiltRequests(t *testing.T) {
	for name, what := range map[string]fault{"throttled": throttled, "broken": broken, "unsent": unsent, "lost": lost} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, dynamolocal.Shared(t))
			l := open(t, p.url(table(t, dynamolocal.Shared(t))), "")
			p.spoils(once(what))
			a := write(t, l, "state/a", bus.Position{}, "a1")
			a2 := write(t, l, "state/a", a, "a2")
			if a2.Seq != a.Seq+1 {
				t.Errorf("the second entry is at %v, the first at %v: one was written twice", a2, a)
			}
			if again := write(t, l, "state/a", a2, "a2"); again != a2 {
				t.Errorf("what is there already was written again, at %v", again)
			}
			p.spoils(once(what))
			if e, err := l.Get(t.Context(), "state/a"); err != nil || e.Position != a2 {
				t.Errorf("Get: %v, %v", e.Position, err)
			}
			p.spoils(once(what))
			if got := newest(t, l, "state"); got["state/a"] != "a2" || len(got) != 1 {
				t.Errorf("following: %v", got)
			}
			p.spoils(once(what))
			if err := l.Board().Put(t.Context(), "beacon/web", []byte("b")); err != nil {
				t.Error(err)
			}
		})
	}
}

// once spoils the first request of each operation.
func once(what fault) func(request) fault {
	seen := make(map[string]bool)
	return func(r request) fault {
		if seen[r.operation] {
			return none
		}
		seen[r.operation] = true
		return what
	}
}

// TestUnknownOutcome loses every answer: Append fails, and the same call later
// finds that it was done.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	p := newProxy(t, dynamolocal.Shared(t))
	l := open(t, p.url(table(t, dynamolocal.Shared(t))), "")
	a := write(t, l, "state/a", bus.Position{}, "a1")
	p.spoils(func(r request) fault {
		if r.operation == "TransactWriteItems" {
			return lost
		}
		return none
	})
	_, err := l.Append(t.Context(), "state/a", a, []byte("a2"))
	var conflict *bus.ConflictError
	if err == nil || errors.As(err, &conflict) {
		t.Fatalf("without an answer: %v", err)
	}
	if err := l.Check(); err == nil {
		t.Error("Check says that the bus is reached")
	}
	p.spoils(nil)
	a2 := write(t, l, "state/a", a, "a2")
	if a2.Seq != a.Seq+1 {
		t.Errorf("it was written again: %v", a2)
	}
	if err := l.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
	// The client goes on from there, although it did not see its own sequence.
	write(t, l, "state/b", bus.Position{}, "b1")
}

// TestThrottledForGood holds that a call ends, with the reason, where the table
// gives no capacity at all.
func TestThrottledForGood(t *testing.T) {
	t.Parallel()
	p := newProxy(t, dynamolocal.Shared(t))
	l := open(t, p.url(table(t, dynamolocal.Shared(t))), "")
	a := write(t, l, "state/a", bus.Position{}, "a1")
	p.spoils(func(request) fault { return throttled })
	if _, err := l.Get(t.Context(), "state/a"); err == nil || !strings.Contains(err.Error(), "ProvisionedThroughputExceeded") {
		t.Errorf("Get: %v", err)
	}
	for _, err := range l.Follow(t.Context(), "state", a) {
		if err == nil || errors.Is(err, bus.ErrPosition) {
			t.Errorf("Follow: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Append(ctx, "state/a", a, []byte("a2")); !errors.Is(err, context.Canceled) {
		t.Errorf("Append that was given up: %v", err)
	}
}

// TestCanceledTransactions cancels transactions for reasons that have nothing to
// do with the append: it is tried again.
func TestCanceledTransactions(t *testing.T) {
	for name, what := range map[string]fault{"conflicting": conflicting, "starved": starved} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, dynamolocal.Shared(t))
			l := open(t, p.url(table(t, dynamolocal.Shared(t))), "")
			tries := 0
			p.spoils(func(r request) fault {
				if r.operation != "TransactWriteItems" {
					return none
				}
				if tries++; tries <= 4 {
					return what
				}
				return none
			})
			if p := write(t, l, "state/a", bus.Position{}, "a1"); p.Seq != 1 {
				t.Errorf("written at %v", p)
			}
			if tries != 5 {
				t.Errorf("%d tries", tries)
			}
			if err := l.Check(); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

// TestStaleHead answers a follower from a copy of the table that is behind: it
// is no log that went back.
func TestStaleHead(t *testing.T) {
	t.Parallel()
	p := newProxy(t, dynamolocal.Shared(t))
	url := table(t, dynamolocal.Shared(t))
	l, writer := open(t, p.url(url), ""), open(t, url, "")
	a := write(t, writer, "state/a", bus.Position{}, "a1")
	late := 0
	p.spoils(func(r request) fault {
		if r.operation != "Query" || r.body["ConsistentRead"] != false {
			return none
		}
		if late++; late == 3 {
			if _, err := writer.Append(t.Context(), "state/b", bus.Position{}, []byte("b1")); err != nil {
				t.Error(err)
			}
		}
		return stale
	})
	for u, err := range l.Follow(t.Context(), "state", a) {
		if err != nil {
			t.Fatal(err)
		}
		if u.Key == "state/b" {
			break
		}
	}
	if late < 3 {
		t.Errorf("%d questions were answered late", late)
	}
}

// TestSupersededWhileRead changes a key between a follower's two questions: what
// it was about to read is gone, and what replaced it comes before the mark.
func TestSupersededWhileRead(t *testing.T) {
	t.Parallel()
	p := newProxy(t, dynamolocal.Shared(t))
	direct := table(t, dynamolocal.Shared(t))
	l, writer := open(t, p.url(direct), ""), open(t, direct, "")
	a := write(t, writer, "state/a", bus.Position{}, "a1")
	write(t, writer, "state/b", bus.Position{}, "b1")
	questions := 0
	p.spoils(func(r request) fault {
		if r.operation == "Query" {
			if questions++; questions == 2 {
				for _, w := range []struct {
					key   string
					after bus.Position
					data  string
				}{{"state/a", a, "a2"}, {"state/c", bus.Position{}, "c1"}} {
					if _, err := writer.Append(t.Context(), w.key, w.after, []byte(w.data)); err != nil {
						t.Error(err)
					}
				}
			}
		}
		return none
	})
	var got []string
	for u, err := range l.Follow(t.Context(), "state", bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			got = append(got, "mark")
			break
		}
		got = append(got, string(u.Data))
	}
	if text := strings.Join(got, " "); text != "b1 a2 c1 mark" {
		t.Errorf("it saw %s", text)
	}
}

func write(t *testing.T, l bus.Log, key string, after bus.Position, data string) bus.Position {
	t.Helper()
	p, err := l.Append(t.Context(), key, after, []byte(data))
	if err != nil {
		t.Fatalf("Append(%s, %v): %v", key, after, err)
	}
	return p
}

// newest returns what a scope has.
func newest(t *testing.T, l bus.Log, scope string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for u, err := range l.Follow(t.Context(), scope, bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			break
		}
		got[u.Key] = string(u.Data)
	}
	return got
}
