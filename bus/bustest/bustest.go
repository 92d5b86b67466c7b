// SPDX-License-Identifier: Apache-2.0

// Package bustest holds every bus to the contract of bus.Log: a back end is
// right when Run passes.
//
//	func TestConformance(t *testing.T) {
//		bustest.Run(t, func(t *testing.T) bustest.Engine { … })
//	}
package bustest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// Timeout bounds each test of the suite: how long a broken back end may hang.
const Timeout = 60 * time.Second

// An Engine makes the logs that one test uses. All start empty.
type Engine struct {
	// Open returns a client of the test's log; called again, another client
	// of the same log, with connections of its own where it has any.
	Open func(*testing.T) bus.Log
	// Other returns a client of a log that has nothing to do with Open's.
	Other func(*testing.T) bus.Log
	// Restart ends the engine behind Open and starts it again with what it keeps
	// on disk. Nil is an engine that keeps nothing. Clients made before go on working afterwards,
	// perhaps after errors.
	Restart func(*testing.T)
}

// Run runs the suite; start makes an engine for each test.
func Run(t *testing.T, start func(*testing.T) Engine) {
	tests := []struct {
		name string
		run  func(*testing.T, context.Context, Engine)
	}{
		{"GetMissing", getMissing},
		{"AppendReplacesWhatItNames", appendReplaces},
		{"RetryIsRecognised", retry},
		{"Limits", limits},
		{"DataBelongToTheCaller", ownership},
		{"FollowFromTheStart", followStart},
		{"FollowFromAPosition", followFrom},
		{"FollowScopes", followScopes},
		{"FollowLive", followLive},
		{"FollowRefusesForeignPositions", foreignPositions},
		{"FollowEnds", followEnds},
		{"OneWinner", oneWinner},
		{"FollowersConverge", converge},
		{"FollowMissesNothing", missesNothing},
		{"Restart", restart},
	}
	keeps := start(t).Restart != nil
	for _, test := range tests {
		if test.name == "Restart" && !keeps {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), Timeout)
			defer cancel()
			test.run(t, ctx, start(t))
		})
	}
}

func getMissing(t *testing.T, ctx context.Context, e Engine) {
	if _, err := e.Open(t).Get(ctx, "state/none"); !errors.Is(err, bus.ErrNotFound) {
		t.Fatalf("Get of a key without entry: %v", err)
	}
}

func appendReplaces(t *testing.T, ctx context.Context, e Engine) {
	l, again := e.Open(t), e.Open(t)
	p1 := put(t, ctx, l, "state/a", bus.Position{}, "one")
	wantEntry(t, ctx, again, "state/a", "one", p1)
	wantConflict(t, ctx, again, "state/a", bus.Position{}, "other")
	p2 := put(t, ctx, again, "state/a", p1, "two")
	if p1 == p2 || p2.IsZero() {
		t.Fatalf("positions %v and %v", p1, p2)
	}
	wantConflict(t, ctx, l, "state/a", p1, "three")
	wantEntry(t, ctx, l, "state/a", "two", p2)
	// Another key's entries do not matter, and its position is not this key's.
	pb := put(t, ctx, l, "state/b", bus.Position{}, "b")
	wantConflict(t, ctx, l, "state/a", pb, "four")
	put(t, ctx, l, "state/a", p2, "five")
	// A position of another log is never the newest of this one.
	wantConflict(t, ctx, l, "state/b", bus.Position{Log: "elsewhere", Seq: pb.Seq}, "six")
	// Empty data are data.
	pc := put(t, ctx, l, "state/c", bus.Position{}, "")
	wantEntry(t, ctx, l, "state/c", "", pc)
}

func retry(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	p1 := put(t, ctx, l, "state/a", bus.Position{}, "one")
	if p := put(t, ctx, l, "state/a", bus.Position{}, "one"); p != p1 {
		t.Fatalf("a retry was written again: %v, then %v", p1, p)
	}
	p2 := put(t, ctx, l, "state/a", p1, "two")
	if p := put(t, ctx, l, "state/a", p1, "two"); p != p2 {
		t.Fatalf("a retry was written again: %v, then %v", p2, p)
	}
	wantConflict(t, ctx, l, "state/a", bus.Position{}, "one") // no longer the newest
}

func limits(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	big := strings.Repeat("x", bus.MaxData)
	p := put(t, ctx, l, "state/big", bus.Position{}, big)
	wantEntry(t, ctx, l, "state/big", big, p)
	if _, err := l.Append(ctx, "state/big", p, []byte(big+"x")); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
	wantEntry(t, ctx, l, "state/big", big, p)
	for _, key := range []string{"", "a//b", "a/*", "a/>", "a.b", "a b", strings.Repeat("k", bus.MaxKey+1)} {
		if _, err := l.Append(ctx, key, bus.Position{}, nil); !errors.Is(err, bus.ErrKey) {
			t.Errorf("Append to %q: %v", key, err)
		}
		if _, err := l.Get(ctx, key); !errors.Is(err, bus.ErrKey) {
			t.Errorf("Get of %q: %v", key, err)
		}
		for _, err := range l.Follow(ctx, key, bus.Position{}) {
			if !errors.Is(err, bus.ErrKey) {
				t.Errorf("Follow of %q: %v", key, err)
			}
		}
	}
	long := strings.Repeat("k", bus.MaxKey)
	wantEntry(t, ctx, l, long, "v", put(t, ctx, l, long, bus.Position{}, "v"))
}

func ownership(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	data := []byte("mine")
	p, err := l.Append(ctx, "state/a", bus.Position{}, data)
	if err != nil {
		t.Fatal(err)
	}
	copy(data, "XXXX")
	got, err := l.Get(ctx, "state/a")
	if err != nil {
		t.Fatal(err)
	}
	copy(got.Data, "YYYY")
	wantEntry(t, ctx, l, "state/a", "mine", p)
}

func followStart(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	f := follow(t, ctx, l, "state", bus.Position{})
	f.wantMark()
	f.stop()

	pa := put(t, ctx, l, "state/a", bus.Position{}, "a1")
	put(t, ctx, l, "state/b", bus.Position{}, "b1")
	put(t, ctx, l, "state/a", pa, "a2")
	put(t, ctx, l, "names/x", bus.Position{}, "x")
	f = follow(t, ctx, l, "state", bus.Position{})
	f.wantNewest(map[string]string{"state/a": "a2", "state/b": "b1"})
	f.stop()
}

func followFrom(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	pa := put(t, ctx, l, "state/a", bus.Position{}, "a1")
	pb := put(t, ctx, l, "state/b", bus.Position{}, "b1")
	put(t, ctx, l, "state/a", pa, "a2")
	f := follow(t, ctx, l, "state", pb)
	at := f.wantNewest(map[string]string{"state/a": "a2"})
	f.stop()
	f = follow(t, ctx, l, "state", at)
	f.wantMark()
	pc := put(t, ctx, l, "state/c", bus.Position{}, "c1")
	f.want("state/c", "c1", pc)
	f.stop()
	// Nothing follows the newest one.
	f = follow(t, ctx, l, "state", pc)
	f.wantMark()
	f.stop()
}

func followScopes(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	for _, k := range []string{"group/web/a", "group/web/b", "group/website/a", "group/api/a", "state/web", "group/web"} {
		put(t, ctx, l, k, bus.Position{}, k)
	}
	for scope, keys := range map[string][]string{
		"group/web":   {"group/web/a", "group/web/b", "group/web"},
		"group":       {"group/web/a", "group/web/b", "group/website/a", "group/api/a", "group/web"},
		"group/web/a": {"group/web/a"},
		"group/we":    {},
		"other":       {},
	} {
		want := map[string]string{}
		for _, k := range keys {
			want[k] = k
		}
		f := follow(t, ctx, l, scope, bus.Position{})
		f.wantNewest(want)
		f.stop()
	}
}

func followLive(t *testing.T, ctx context.Context, e Engine) {
	l, writer := e.Open(t), e.Open(t)
	f, g := follow(t, ctx, l, "group/web", bus.Position{}), follow(t, ctx, l, "group/api", bus.Position{})
	f.wantMark()
	g.wantMark()
	var last bus.Position
	for i := range 20 {
		put(t, ctx, writer, fmt.Sprintf("group/api/k%d", i), bus.Position{}, "x")
		data := fmt.Sprint("v", i)
		last = put(t, ctx, writer, "group/web/k", last, data)
		f.want("group/web/k", data, last)
	}
	for i := range 20 {
		u := g.next()
		if u.Key != fmt.Sprintf("group/api/k%d", i) {
			t.Fatalf("order within the scope is lost: %d is %s", i, u.Key)
		}
	}
	f.stop()
	g.stop()
}

func foreignPositions(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	p := put(t, ctx, l, "state/a", bus.Position{}, "a")
	var foreign bus.Position
	other := e.Other(t)
	for i := range 3 {
		foreign = put(t, ctx, other, fmt.Sprint("state/k", i), bus.Position{}, "k")
	}
	for what, from := range map[string]bus.Position{
		"another log's":   foreign,
		"above the head":  {Log: p.Log, Seq: p.Seq + 1000},
		"a made-up log's": {Log: "nonesuch", Seq: 1},
	} {
		var got error
		for _, err := range l.Follow(ctx, "state", from) {
			got = err
			if err == nil {
				break
			}
		}
		if !errors.Is(got, bus.ErrPosition) {
			t.Errorf("following from a position that is %s: %v", what, got)
		}
	}
}

func followEnds(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var last error
	for u, err := range l.Follow(ctx, "state", bus.Position{}) {
		if u.CaughtUp {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Fatalf("ended with %v", last)
	}
}

// oneWinner is the contract's heart: of writers that replace the same entry
// exactly one succeeds, through whatever client.
func oneWinner(t *testing.T, ctx context.Context, e Engine) {
	const writers, rounds = 8, 20
	var after bus.Position
	logs := make([]bus.Log, writers)
	for i := range logs {
		logs[i] = e.Open(t)
	}
	for round := range rounds {
		var wg sync.WaitGroup
		var won atomic.Int32
		var winner atomic.Value
		for i, l := range logs {
			wg.Go(func() {
				p, err := l.Append(ctx, "state/a", after, fmt.Appendf(nil, "round %d writer %d", round, i))
				var conflict *bus.ConflictError
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(p)
				case !errors.As(err, &conflict):
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d has %d winners", round, won.Load())
		}
		after = winner.Load().(bus.Position)
	}
}

// converge checks that followers, from wherever they start and however often
// they are interrupted, end with the newest entries, each key's in order.
func converge(t *testing.T, ctx context.Context, e Engine) {
	const keys, writes = 8, 300
	final := make(map[string]string)
	var wg sync.WaitGroup
	for i := range 4 {
		l := e.Open(t)
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			seen := make(map[string]string)
			var at bus.Position
			for ctx.Err() == nil {
				take := rng.IntN(40)
				for u, err := range l.Follow(ctx, "state", at) {
					if err != nil {
						t.Errorf("follower %d: %v", i, err)
						return
					}
					at = u.Position
					if !u.CaughtUp {
						if old := seen[u.Key]; old >= string(u.Data) {
							t.Errorf("follower %d: %s went from %s to %s", i, u.Key, old, u.Data)
						}
						seen[u.Key] = string(u.Data)
					}
					if done := seen["state/end"] != ""; done || take == 0 {
						if done {
							goto compare
						}
						break
					}
					take--
				}
			}
		compare:
			delete(seen, "state/end")
			if ctx.Err() != nil || fmt.Sprint(seen) != fmt.Sprint(final) {
				t.Errorf("follower %d has %v, the log %v (%v)", i, seen, final, ctx.Err())
			}
		})
	}
	l := e.Open(t)
	at := make(map[string]bus.Position)
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range writes {
		k := fmt.Sprint("state/k", rng.IntN(keys))
		final[k] = fmt.Sprintf("%06d", n)
		at[k] = put(t, ctx, l, k, at[k], final[k])
	}
	put(t, ctx, l, "state/end", bus.Position{}, "end")
	wg.Wait()
}

// missesNothing checks that whoever follows from the start has every key before
// the mark, while all of them are written again and again.
func missesNothing(t *testing.T, ctx context.Context, e Engine) {
	const keys, writers, writes = 12, 4, 60
	l := e.Open(t)
	key := func(n int) string { return fmt.Sprint("state/k", n) }
	at := make([]bus.Position, keys)
	for n := range keys {
		at[n] = put(t, ctx, l, key(n), bus.Position{}, "first")
	}
	var writing sync.WaitGroup
	for i := range writers { // each has keys of its own
		own := e.Open(t)
		writing.Go(func() {
			for n := range writes {
				k := i + writers*(n%(keys/writers))
				p, err := own.Append(ctx, key(k), at[k], fmt.Appendf(nil, "%d", n))
				if err != nil {
					t.Errorf("writing %s: %v", key(k), err)
					return
				}
				at[k] = p
			}
		})
	}
	written := make(chan struct{})
	go func() {
		writing.Wait()
		close(written)
	}()
	for done := false; !done && !t.Failed(); {
		select {
		case <-written:
			done = true
		default:
		}
		seen := make(map[string]bool)
		for u, err := range l.Follow(ctx, "state", bus.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if u.CaughtUp {
				break
			}
			seen[u.Key] = true
		}
		if len(seen) != keys {
			t.Errorf("the mark came after %d of %d keys", len(seen), keys)
		}
	}
	<-written
}

func restart(t *testing.T, ctx context.Context, e Engine) {
	l := e.Open(t)
	pa := put(t, ctx, l, "state/a", bus.Position{}, "a1")
	pa = put(t, ctx, l, "state/a", pa, "a2")
	put(t, ctx, l, "state/b", bus.Position{}, "b1")
	e.Restart(t)
	fresh := e.Open(t)
	wantEntry(t, ctx, fresh, "state/a", "a2", pa)
	wantConflict(t, ctx, fresh, "state/a", bus.Position{}, "other")
	f := follow(t, ctx, fresh, "state", pa)
	f.wantNewest(map[string]string{"state/b": "b1"})
	pa = put(t, ctx, fresh, "state/a", pa, "a3")
	f.want("state/a", "a3", pa)
	f.stop()
	// The client from before works again.
	for {
		got, err := l.Get(ctx, "state/a")
		if err == nil && string(got.Data) == "a3" {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the client did not recover: %v", err)
		}
	}
}
