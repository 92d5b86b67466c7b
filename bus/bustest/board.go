// SPDX-License-Identifier: Apache-2.0

package bustest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/bus"
)

// RunBoard holds the board of an engine to the contract of bus.Board; start
// makes an engine for each test, whose logs are bus.Boarders.
func RunBoard(t *testing.T, start func(*testing.T) Engine) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, context.Context, Engine)
	}{
		{"NewestWins", boardNewestWins},
		{"FollowFromTheStart", boardStart},
		{"FollowScopes", boardScopes},
		{"FollowLive", boardLive},
		{"LostPositionsAreNoError", boardLostPositions},
		{"FollowEnds", boardEnds},
		{"Limits", boardLimits},
		{"DataBelongToTheCaller", boardOwnership},
		{"ApartFromTheLog", boardApart},
		{"FollowersConverge", boardConverge},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), Timeout)
			defer cancel()
			test.run(t, ctx, start(t))
		})
	}
}

func openBoard(t *testing.T, open func(*testing.T) bus.Log) bus.Board {
	t.Helper()
	l, ok := open(t).(bus.Boarder)
	if !ok {
		t.Fatal("the engine's log is no bus.Boarder")
	}
	return l.Board()
}

func notice(t *testing.T, ctx context.Context, b bus.Board, key, data string) {
	t.Helper()
	if err := b.Put(ctx, key, []byte(data)); err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
}

// until reads until these are the newest notices: what was put may be on its
// way still, and may come twice.
func (f *follower) until(want map[string]string) {
	f.t.Helper()
	for got := make(map[string]string); !maps.Equal(got, want); {
		u := f.next()
		if u.CaughtUp {
			continue
		}
		if _, ok := want[u.Key]; !ok {
			f.t.Fatalf("got %s = %q, which is not to be seen; want %v", u.Key, u.Data, want)
		}
		got[u.Key] = string(u.Data)
	}
}

func boardNewestWins(t *testing.T, ctx context.Context, e Engine) {
	b, again := openBoard(t, e.Open), openBoard(t, e.Open)
	f := follow(t, ctx, b, "receipt", bus.Position{})
	for i, from := range []bus.Board{b, again, b, again} {
		data := fmt.Sprint("v", i)
		notice(t, ctx, from, "receipt/web/m/0", data)
		f.until(map[string]string{"receipt/web/m/0": data})
	}
	// Repeating a notice is no error, nor is taking it back to what it was.
	notice(t, ctx, b, "receipt/web/m/0", "v3")
	notice(t, ctx, b, "receipt/web/m/0", "v0")
	f.until(map[string]string{"receipt/web/m/0": "v0"})
}

func boardStart(t *testing.T, ctx context.Context, e Engine) {
	b := openBoard(t, e.Open)
	f := follow(t, ctx, b, "receipt", bus.Position{})
	f.wantMark()
	f.stop()
	notice(t, ctx, b, "receipt/web/m/0", "old")
	notice(t, ctx, b, "receipt/web/m/0", "new")
	notice(t, ctx, b, "receipt/web/n/0", "")
	notice(t, ctx, b, "beacon/web", "b")
	want := map[string]string{"receipt/web/m/0": "new", "receipt/web/n/0": ""}
	for range 2 {
		f := follow(t, ctx, openBoard(t, e.Open), "receipt", bus.Position{})
		f.until(want)
		f.stop()
	}
}

func boardScopes(t *testing.T, ctx context.Context, e Engine) {
	b := openBoard(t, e.Open)
	for _, k := range []string{"receipt/web/m/0", "receipt/web/m/1", "receipt/web/n/0", "receipt/website/m/0", "receipt/api/m/0", "beacon/web", "beacon/api"} {
		notice(t, ctx, b, k, k)
	}
	for scope, keys := range map[string][]string{
		"receipt":         {"receipt/web/m/0", "receipt/web/m/1", "receipt/web/n/0", "receipt/website/m/0", "receipt/api/m/0"},
		"receipt/web":     {"receipt/web/m/0", "receipt/web/m/1", "receipt/web/n/0"},
		"receipt/web/m":   {"receipt/web/m/0", "receipt/web/m/1"},
		"receipt/web/m/1": {"receipt/web/m/1"},
		"beacon":          {"beacon/web", "beacon/api"},
		"beacon/web":      {"beacon/web"},
	} {
		want := map[string]string{}
		for _, k := range keys {
			want[k] = k
		}
		f := follow(t, ctx, b, scope, bus.Position{})
		f.until(want)
		f.stop()
	}
	for _, scope := range []string{"receipt/we", "other", "beacon/web/x"} {
		f := follow(t, ctx, b, scope, bus.Position{})
		f.wantMark()
		f.stop()
	}
}

func boardLive(t *testing.T, ctx context.Context, e Engine) {
	b, writer := openBoard(t, e.Open), openBoard(t, e.Open)
	f, g := follow(t, ctx, b, "beacon/web", bus.Position{}), follow(t, ctx, b, "beacon", bus.Position{})
	f.wantMark()
	g.wantMark()
	for i := range 5 {
		notice(t, ctx, writer, "beacon/api", fmt.Sprint("a", i))
		notice(t, ctx, writer, "beacon/web", fmt.Sprint("w", i))
		f.until(map[string]string{"beacon/web": fmt.Sprint("w", i)})
	}
	g.until(map[string]string{"beacon/api": "a4", "beacon/web": "w4"})
}

func boardLostPositions(t *testing.T, ctx context.Context, e Engine) {
	b := openBoard(t, e.Open)
	want := map[string]string{"receipt/web/m/0": "r"}
	notice(t, ctx, b, "receipt/web/m/0", "r")
	f := follow(t, ctx, b, "receipt", bus.Position{})
	f.until(want)
	f.stop()
	for what, from := range map[string]bus.Position{
		"a made-up board's": {Log: "nonesuch", Seq: 1},
		"far above":         {Log: "nonesuch", Seq: 1 << 62},
	} {
		t.Log(what)
		f := follow(t, ctx, b, "receipt", from)
		f.until(want)
		f.stop()
	}
}

func boardEnds(t *testing.T, ctx context.Context, e Engine) {
	b := openBoard(t, e.Open)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var last error
	for u, err := range b.Follow(ctx, "beacon/web", bus.Position{}) {
		if u.CaughtUp {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Fatalf("ended with %v", last)
	}
}

func boardLimits(t *testing.T, ctx context.Context, e Engine) {
	b := openBoard(t, e.Open)
	big := strings.Repeat("x", bus.MaxData)
	notice(t, ctx, b, "receipt/web/m/0", big)
	f := follow(t, ctx, b, "receipt", bus.Position{})
	f.until(map[string]string{"receipt/web/m/0": big})
	f.stop()
	if err := b.Put(ctx, "receipt/web/m/0", []byte(big+"x")); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
	for _, key := range []string{"", "a//b", "a/*", "a/>", "a.b", "a b", strings.Repeat("k", bus.MaxKey+1)} {
		if err := b.Put(ctx, key, nil); !errors.Is(err, bus.ErrKey) {
			t.Errorf("Put to %q: %v", key, err)
		}
		for _, err := range b.Follow(ctx, key, bus.Position{}) {
			if !errors.Is(err, bus.ErrKey) {
				t.Errorf("Follow of %q: %v", key, err)
			}
		}
	}
}

func boardOwnership(t *testing.T, ctx context.Context, e Engine) {
	b := openBoard(t, e.Open)
	data := []byte("mine")
	if err := b.Put(ctx, "beacon/web", data); err != nil {
		t.Fatal(err)
	}
	copy(data, "XXXX")
	for range 2 {
		f := follow(t, ctx, b, "beacon/web", bus.Position{})
		u := f.next()
		for u.CaughtUp {
			u = f.next()
		}
		if string(u.Data) != "mine" {
			t.Fatalf("the notice became %q", u.Data)
		}
		copy(u.Data, "YYYY")
		f.stop()
	}
}

// boardApart checks that a board and its log, and two tenants' boards, have
// nothing in common.
func boardApart(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	b := openBoard(t, func(*testing.T) bus.Log { return l })
	put(t, ctx, l, "beacon/web", bus.Position{}, "log")
	notice(t, ctx, b, "beacon/web", "board")
	notice(t, ctx, openBoard(t, e.Other), "beacon/web", "other")
	f := follow(t, ctx, b, "beacon", bus.Position{})
	f.until(map[string]string{"beacon/web": "board"})
	f.stop()
	f = follow(t, ctx, l, "beacon", bus.Position{})
	f.wantNewest(map[string]string{"beacon/web": "log"})
	f.stop()
}

// boardConverge checks that followers of several writers, each with keys of its
// own, end with what was written last and see no key go back.
func boardConverge(t *testing.T, ctx context.Context, e Engine) {
	const writers, writes = 4, 40
	var wg sync.WaitGroup
	for range 2 {
		b := openBoard(t, e.Open)
		wg.Go(func() {
			seen := make(map[string]string)
			done := 0
			for u, err := range b.Follow(ctx, "receipt", bus.Position{}) {
				if err != nil {
					t.Errorf("following: %v; seen %v", err, seen)
					return
				}
				if u.CaughtUp {
					continue
				}
				if old := seen[u.Key]; old > string(u.Data) {
					t.Errorf("%s went from %s to %s", u.Key, old, u.Data)
				} else if last := fmt.Sprintf("%06d", writes-1); old != last && string(u.Data) == last {
					done++
				}
				seen[u.Key] = string(u.Data)
				if done == writers {
					return
				}
			}
		})
	}
	for i := range writers {
		b := openBoard(t, e.Open)
		wg.Go(func() {
			for n := range writes {
				if err := b.Put(ctx, fmt.Sprintf("receipt/web/m%d/0", i), fmt.Appendf(nil, "%06d", n)); err != nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
