// SPDX-License-Identifier: Apache-2.0

package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/keyturn/keyturn/bus"
)

func put(t *testing.T, ctx context.Context, l bus.Log, key string, after bus.Position, data string) bus.Position {
	t.Helper()
	p, err := l.Append(ctx, key, after, []byte(data))
	if err != nil {
		t.Fatalf("Append(%s, %v): %v", key, after, err)
	}
	return p
}

func wantConflict(t *testing.T, ctx context.Context, l bus.Log, key string, after bus.Position, data string) {
	t.Helper()
	_, err := l.Append(ctx, key, after, []byte(data))
	var conflict *bus.ConflictError
	if !errors.As(err, &conflict) || conflict.Key != key || conflict.After != after {
		t.Fatalf("Append(%s, %v): %v; want a conflict", key, after, err)
	}
}

func wantEntry(t *testing.T, ctx context.Context, l bus.Log, key, data string, at bus.Position) {
	t.Helper()
	e, err := l.Get(ctx, key)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	if e.Key != key || !bytes.Equal(e.Data, []byte(data)) || e.Position != at {
		t.Fatalf("Get(%s) is %q, %d bytes at %v; want %d bytes at %v", key, e.Key, len(e.Data), e.Position, len(data), at)
	}
}

// A follower pulls one update at a time.
type follower struct {
	t     *testing.T
	pull  func() (bus.Update, error, bool)
	close func()
}

// A followed is a bus.Log or a bus.Board.
type followed interface {
	Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error]
}

func follow(t *testing.T, ctx context.Context, l followed, scope string, from bus.Position) *follower {
	t.Helper()
	pull, stop := iter.Pull2(l.Follow(ctx, scope, from))
	t.Cleanup(stop)
	return &follower{t, pull, stop}
}

func (f *follower) next() bus.Update {
	f.t.Helper()
	u, err, ok := f.pull()
	if !ok || err != nil {
		f.t.Fatalf("Follow ended: %v", err)
	}
	return u
}

func (f *follower) want(key, data string, at bus.Position) {
	f.t.Helper()
	u := f.next()
	if u.CaughtUp || u.Key != key || string(u.Data) != data || u.Position != at {
		f.t.Fatalf("got %s = %q at %v (caught up: %t); want %s = %q at %v", u.Key, u.Data, u.Position, u.CaughtUp, key, data, at)
	}
}

func (f *follower) wantMark() bus.Position {
	f.t.Helper()
	return f.wantNewest(map[string]string{})
}

// wantNewest reads up to the caught-up mark and wants these entries, each key's
// last one, and returns the mark's position.
func (f *follower) wantNewest(want map[string]string) bus.Position {
	f.t.Helper()
	got := make(map[string]string)
	for {
		u := f.next()
		if u.CaughtUp {
			if fmt.Sprint(got) != fmt.Sprint(want) {
				f.t.Fatalf("up to the mark: %v; want %v", got, want)
			}
			return u.Position
		}
		got[u.Key] = string(u.Data)
	}
}

func (f *follower) stop() { f.close() }
