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
	"time"

	"github.com/keyturn/keyturn/bus"
)

// faultTimeout bounds Through: servers notice some faults after many seconds only.
const faultTimeout = 4 * time.Minute

// A Fault is something that goes wrong with an engine, and is mended again.
type Fault struct {
	// Begin and End return when the fault is there, and when it has ended.
	Begin, End func(*testing.T)
	// Writable says that entries can be written meanwhile, if not by every client.
	Writable bool
}

// Numbers of Through.
const (
	faultWriters   = 4
	faultFollowers = 3
	faultKeys      = 3
	faultPhase     = 40 // entries that are written before, during, and by each after the fault
)

// Through holds an engine to what has to be true while something goes wrong, and
// afterwards: writers replace each other's entries, followers follow; of the writers
// one wins each time, nothing that was acknowledged is lost, no key goes back, and
// everybody works again in the end and holds the same.
func Through(t *testing.T, e Engine, fault Fault) {
	ctx, cancel := context.WithTimeout(t.Context(), faultTimeout)
	h := &history{}
	var writing, following sync.WaitGroup
	defer func() {
		cancel()
		writing.Wait()
		following.Wait()
	}()
	stop := make(chan struct{})
	logs := make([]*faultWriter, faultWriters)
	for i := range logs {
		logs[i] = &faultWriter{name: fmt.Sprint("w", i), log: e.Open(t), history: h}
		writing.Go(func() { logs[i].run(ctx, t, stop) })
	}
	followers := make([]map[string]string, faultFollowers)
	for i := range followers {
		l := e.Open(t)
		following.Go(func() { followers[i] = followThrough(ctx, t, l) })
	}
	h.await(ctx, t, "before the fault", func() bool { return h.acked >= faultPhase })
	fault.Begin(t)
	if before := h.count(); fault.Writable {
		h.await(ctx, t, "during the fault", func() bool { return h.acked >= before+faultPhase })
	}
	fault.End(t)
	before := h.each()
	h.await(ctx, t, "after the fault", func() bool {
		for _, w := range logs {
			if h.by[w.name] < before[w.name]+faultPhase/faultWriters {
				return false
			}
		}
		return true
	})
	close(stop)
	writing.Wait()
	final := h.check(ctx, t, e.Open(t))
	put(t, ctx, logs[0].log, "state/end", bus.Position{}, "end")
	following.Wait()
	for i, got := range followers {
		if !maps.Equal(got, final) && !t.Failed() {
			t.Errorf("follower %d ends with %v, and the log has %v", i, got, final)
		}
	}
}

// A faultWriter replaces what it finds, until it is stopped.
type faultWriter struct {
	name    string
	log     bus.Log
	history *history
}

// callTimeout bounds one attempt.
const callTimeout = 10 * time.Second

func (w *faultWriter) run(ctx context.Context, t *testing.T, stop <-chan struct{}) {
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-stop:
			return
		default:
		}
		key := fmt.Sprint("state/k", n%faultKeys)
		after, ok := w.get(ctx, key)
		if !ok {
			continue
		}
		data := fmt.Sprintf("%s/%d %s", w.name, n, after)
		at, err := w.append(ctx, key, after, data)
		var conflict *bus.ConflictError
		switch {
		case err == nil:
			w.history.wrote(w.name, key, at, data)
		case !errors.As(err, &conflict) && ctx.Err() == nil:
			t.Errorf("%s: %v", w.name, err)
		}
	}
}

// get returns where the key's newest entry is.
func (w *faultWriter) get(ctx context.Context, key string) (after bus.Position, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	e, err := w.log.Get(ctx, key)
	if errors.Is(err, bus.ErrNotFound) {
		return bus.Position{}, true
	}
	if err != nil {
		return bus.Position{}, false
	}
	w.history.saw(key, e.Position, string(e.Data))
	return e.Position, true
}

// append repeats what is not settled.
func (w *faultWriter) append(ctx context.Context, key string, after bus.Position, data string) (bus.Position, error) {
	for {
		try, cancel := context.WithTimeout(ctx, callTimeout)
		at, err := w.log.Append(try, key, after, []byte(data))
		cancel()
		var conflict *bus.ConflictError
		if err == nil || errors.As(err, &conflict) || ctx.Err() != nil {
			return at, err
		}
	}
}

// followThrough follows, again after each error, until the end is written, and
// returns what it holds then.
func followThrough(ctx context.Context, t *testing.T, l bus.Log) map[string]string {
	held, seen := make(map[string]string), make(map[string]uint64)
	var at bus.Position
	for ctx.Err() == nil {
		for u, err := range l.Follow(ctx, "state", at) {
			if errors.Is(err, bus.ErrPosition) {
				t.Errorf("a follower at %v is told that the log was replaced, or went back", at)
				return held
			}
			if err != nil {
				break
			}
			at = u.Position
			switch {
			case u.CaughtUp:
			case u.Key == "state/end":
				return held
			case u.Position.Seq <= seen[u.Key]:
				t.Errorf("%s went from %d to %d", u.Key, seen[u.Key], u.Position.Seq)
			default:
				held[u.Key], seen[u.Key] = string(u.Data), u.Position.Seq
			}
		}
	}
	t.Errorf("a follower at %v did not come to the end: %v", at, ctx.Err())
	return held
}

// A history is what writers know.
type history struct {
	mu    sync.Mutex
	acked int                                // guarded by mu
	by    map[string]int                     // guarded by mu; acked, by writer
	wrong []string                           // guarded by mu
	wins  map[string]map[bus.Position]string // guarded by mu; what was acknowledged, by key
	seen  map[string]map[bus.Position]string // guarded by mu; what was read or acknowledged
}

func (h *history) wrote(name, key string, at bus.Position, data string) {
	h.note(&h.seen, key, at, data)
	h.note(&h.wins, key, at, data)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by == nil {
		h.by = make(map[string]int)
	}
	h.by[name]++
	h.acked++
}

func (h *history) saw(key string, at bus.Position, data string) { h.note(&h.seen, key, at, data) }

func (h *history) note(all *map[string]map[bus.Position]string, key string, at bus.Position, data string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if *all == nil {
		*all = make(map[string]map[bus.Position]string)
	}
	if (*all)[key] == nil {
		(*all)[key] = make(map[bus.Position]string)
	}
	if old, ok := (*all)[key][at]; ok && old != data {
		h.wrong = append(h.wrong, fmt.Sprintf("%s at %v is %q, and was %q", key, at, data, old))
	}
	(*all)[key][at] = data
}

func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

func (h *history) each() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.by)
}

// await returns when enough was written.
func (h *history) await(ctx context.Context, t *testing.T, when string, enough func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		done := enough()
		h.mu.Unlock()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: too little is written: %v", when, h.each())
		}
	}
}

// check walks from each key's newest entry to its first one, by what each says that
// it replaced, and wants everything that was acknowledged on the way. It returns
// the newest entries.
func (h *history) check(ctx context.Context, t *testing.T, l bus.Log) map[string]string {
	t.Helper()
	final := make(map[string]string)
	for n := range faultKeys {
		key := fmt.Sprint("state/k", n)
		newest, err := l.Get(ctx, key)
		if err != nil {
			t.Fatalf("Get(%s): %v", key, err)
		}
		final[key] = string(newest.Data)
		h.saw(key, newest.Position, final[key])
		lost := maps.Clone(h.wins[key])
		for at := newest.Position; !at.IsZero(); {
			data, ok := h.seen[key][at]
			if !ok {
				t.Fatalf("%s: nobody saw what stood at %v, and yet it was replaced", key, at)
			}
			delete(lost, at)
			_, before, _ := strings.Cut(data, " ")
			if at, err = bus.ParsePosition(before); err != nil {
				t.Fatalf("%s has foreign data: %q", key, data)
			}
		}
		for at, data := range lost {
			t.Errorf("%s: %q was acknowledged at %v, and is lost", key, data, at)
		}
	}
	for _, w := range h.wrong {
		t.Error(w)
	}
	return final
}
