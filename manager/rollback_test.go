// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// A rewindable is a bus whose log can be put back to what it was. The board is
// always the same one.
type rewindable struct {
	board bus.Board
	gets  atomic.Int64

	mu   sync.Mutex
	log  *membus.Log   // guarded by mu
	cut  chan struct{} // guarded by mu; closed when the log is put back
	kept []bus.Entry   // what the log is put back to
}

func newRewindable() *rewindable {
	log := membus.New()
	return &rewindable{log: log, board: log.Board(), cut: make(chan struct{})}
}

// keep remembers what is on the log now.
func (r *rewindable) keep(t *testing.T) {
	r.kept = nil
	for _, scope := range []string{"conf", "names", "group", "state", "member"} {
		for u, err := range r.now().Follow(t.Context(), scope, bus.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if u.CaughtUp {
				break
			}
			r.kept = append(r.kept, u.Entry)
		}
	}
}

// rewind puts the log back, all connections are lost.
func (r *rewindable) rewind(t *testing.T, without ...string) {
	log := membus.New()
	for _, e := range r.kept {
		if len(without) > 0 && strings.Contains(e.Key, without[0]) {
			continue
		}
		if _, err := log.Append(t.Context(), e.Key, bus.Position{}, e.Data); err != nil {
			t.Fatal(err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = log
	close(r.cut)
	r.cut = make(chan struct{})
}

func (r *rewindable) now() *membus.Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log
}

func (r *rewindable) Board() bus.Board { return r.board }

func (r *rewindable) Get(ctx context.Context, key string) (bus.Entry, error) {
	r.gets.Add(1)
	return r.now().Get(ctx, key)
}

func (r *rewindable) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	return r.now().Append(ctx, key, after, data)
}

func (r *rewindable) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		r.mu.Lock()
		log, cut := r.log, r.cut
		r.mu.Unlock()
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-cut:
				cancel()
			case <-inner.Done():
			}
		}()
		for u, err := range log.Follow(inner, scope, from) {
			if err != nil && ctx.Err() == nil && inner.Err() != nil {
				err = errors.New("connection lost")
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

func newRewindableFleet(t *testing.T) (*rewindable, *fleet, *Manager) {
	r := newRewindable()
	f, m := newFleetOn(t, r)
	return r, f, m
}

// proof is what a replica that holds c shows.
func (h *testMember) prove(proofs ...[]byte) {
	h.t.Helper()
	h.put(&event.Receipt{Following: true, Proofs: proofs}, h.key, time.Now())
}

func epochOf(t *testing.T, m *Manager) uint64 {
	t.Helper()
	epoch, err := m.epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

func renew(t *testing.T, m *Manager, id string) *Managed {
	t.Helper()
	c, err := m.Renew(t.Context(), id, event.ReasonRekey)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAProvenRollbackIsMadeUpFor by one of several managers, none of which
// remembers anything.
func TestAProvenRollbackIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		c, other := make1(t, m, "a.example"), make1(t, m, "b.example")
		one, two := f.join(t, m, "one"), f.join(t, m, "two")
		bus.keep(t)
		renew(t, m, c.ID)
		lost := renew(t, m, c.ID)
		bus.rewind(t)
		var managers []*Manager
		for range 3 {
			m := f.manager(t, "")
			managers = append(managers, m)
			defer run(t, m)()
		}
		synctest.Wait()
		for range 3 {
			one.prove(lost.Current)
			two.prove(lost.Current)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		got := at(t, m, c.ID)
		if got.Version != (event.Version{Epoch: 2, Generation: 2}) || got.lastReason() != event.ReasonRollback || !lost.Less(got.Version) || epochOf(t, m) != 2 {
			t.Errorf("%+v", got.State)
		}
		if f.copyOf(t, c.ID).(*event.Certificate).Version != got.Version {
			t.Error("it does not stand for replicas")
		}
		if n := at(t, m, other.ID).Generation; n != 1 {
			t.Errorf("another certificate has generation %d", n)
		}
		var raised, refused uint64
		for _, m := range managers {
			raised, refused = raised+m.Stats().Rollbacks, refused+m.Stats().ProofsRefused
		}
		if raised != 1 || refused != 0 {
			t.Errorf("the epoch was raised %d times, %d proofs were refused", raised, refused)
		}
	})
}

func TestAPassAnswersProofs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		c := make1(t, m, "a.example")
		h := f.join(t, m, "one")
		bus.keep(t)
		lost := renew(t, m, c.ID)
		bus.rewind(t)
		h.prove(lost.Current)
		list, err := f.manager(t, "").RenewDue(t.Context(), DueOptions{})
		if got := results(t, list, err); len(got) != 1 || got[c.ID].Err != nil {
			t.Fatalf("%+v", got)
		}
		if got := at(t, m, c.ID); got.Version != (event.Version{Epoch: 2, Generation: 2}) || got.lastReason() != event.ReasonRollback {
			t.Errorf("%+v", got.State)
		}
	})
}

// TestAManagerRemembers what the log had, without any replica.
func TestAManagerRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		f.join(t, m, "kept").report()
		c, gone, later := make1(t, m, "a.example"), make1(t, m, "b.example"), make1(t, m, "c.example")
		bus.keep(t)
		stop := run(t, m)
		defer stop()
		renew(t, m, c.ID)
		if err := m.Remove(t.Context(), gone.ID); err != nil {
			t.Fatal(err)
		}
		late := make1(t, m, "d.example")
		f.join(t, m, "too-late").report()
		time.Sleep(time.Minute)
		synctest.Wait()
		bus.rewind(t, later.ID)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := at(t, m, c.ID); got.Version != (event.Version{Epoch: 2, Generation: 2}) || got.lastReason() != event.ReasonRollback {
			t.Errorf("%+v", got.State)
		}
		if got := at(t, m, gone.ID); !got.Removed || got.Version != (event.Version{Epoch: 2, Generation: 2}) {
			t.Errorf("%+v", got.State)
		}
		// What is lost altogether is not looked after, and nothing breaks.
		var missing *NotFoundError
		for _, id := range []string{late.ID, later.ID} {
			if _, err := m.Get(t.Context(), id); !errors.As(err, &missing) {
				t.Error(err)
			}
		}
		if l := m.Live(Query{}); len(l.Certificates) != 1 || l.Certificates[0].ID != c.ID {
			t.Errorf("%+v", l.Certificates)
		}
		if l := m.Live(Query{}); len(l.Members) != 1 || l.Members[0].Name != "kept" || l.Members[0].Reported.IsZero() {
			t.Errorf("%+v", l.Members)
		}
		make1(t, m, "e.example")
	})
}

// TestAProvenRemovalIsARemovalAgain, and what was removed since the log went
// back stays removed where a replica holds a later certificate.
func TestAProvenRemovalIsARemovalAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		a, b := make1(t, m, "a.example"), make1(t, m, "b.example")
		h := f.join(t, m, "one")
		bus.keep(t)
		if err := m.Remove(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		removal := at(t, m, a.ID)
		renew(t, m, b.ID)
		lost := renew(t, m, b.ID)
		bus.rewind(t)
		if err := m.Remove(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		stop := run(t, m)
		defer stop()
		synctest.Wait()
		h.prove(removal.Current, lost.Current)
		time.Sleep(time.Minute)
		synctest.Wait()
		for id, lost := range map[string]event.Version{a.ID: removal.Version, b.ID: lost.Version} {
			got := at(t, m, id)
			r, ok := f.copyOf(t, id).(*event.Removal)
			if !got.Removed || got.Epoch != 2 || !lost.Less(got.Version) || !ok || r.Version != got.Version {
				t.Errorf("%+v, for replicas %+v", got.State, r)
			}
		}
	})
}

// TestTheSameVersionTwice: after the log went back, the lost generation's
// number was given to another certificate.
func TestTheSameVersionTwice(t *testing.T) {
	for _, marked := range []bool{false, true} {
		bus, _, m := newRewindableFleet(t)
		c := make1(t, m, "a.example")
		bus.keep(t)
		lost := renew(t, m, c.ID)
		bus.rewind(t)
		if other := renew(t, m, c.ID); lost.Version != other.Version {
			t.Fatal(lost.Version, other.Version)
		}
		want := event.ReasonRollback
		if marked { // for another reason
			want = event.ReasonGroupKey
			if err := m.Mark(t.Context(), c.ID, want); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := m.prove(t.Context(), DefaultGroup, "one", lost.Current, func(string) *Managed { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if got := at(t, m, c.ID); got.Mark == nil || got.Mark.Reason != want || epochOf(t, m) != 2 {
			t.Errorf("%+v, epoch %d", got.Mark, epochOf(t, m))
		}
		if got := renew(t, m, c.ID); got.Epoch != 2 {
			t.Error(got.Version)
		}
	}
}

// TestHostileProofs: nothing that a member can show without a rollback changes
// anything, and what is shown again costs nothing.
func TestHostileProofs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		if err := m.AddGroup(t.Context(), "other", f.group.Public()); err != nil {
			t.Fatal(err)
		}
		c := make1(t, m, "a.example")
		old := c.Current
		c = renew(t, m, c.ID)
		foreign, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Group: "other"})
		if err != nil {
			t.Fatal(err)
		}
		h := f.join(t, m, "hostile")
		sign := func(k *seal.SigningKey, b event.Body) []byte {
			data, err := event.Sign(k, DefaultTenant, time.Now(), b)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		forged := *c.Certificate
		forged.Generation = 99
		state, err := bus.Get(t.Context(), event.StateKey(c.ID))
		if err != nil {
			t.Fatal(err)
		}
		wrong := [][]byte{
			[]byte("junk"), nil, foreign.Current, state.Data,
			sign(h.key, &forged), sign(h.key, &event.Removal{Group: DefaultGroup, ID: c.ID, Version: forged.Version}),
		}
		harmless := [][]byte{
			old, c.Current,
			sign(f.identity.Signing, c.Certificate), // the same, signed anew
		}
		var lines lineCounter
		runner, err := New(Config{
			Log: bus, Identity: f.identity, Logger: slog.New(slog.NewTextHandler(&lines, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		defer stop()
		synctest.Wait()
		lines.n.Store(0)
		h.prove(append(wrong, harmless...)...)
		time.Sleep(time.Minute)
		synctest.Wait()
		gets := bus.gets.Load()
		for range 60 {
			h.prove(append(wrong, harmless...)...)
			time.Sleep(time.Minute)
		}
		for i := range 60 {
			var junk [][]byte
			for j := range event.MaxProofs {
				junk = append(junk, fmt.Appendf(nil, "junk %d %d", i, j))
			}
			h.prove(junk...)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := bus.gets.Load() - gets; n != 0 {
			t.Errorf("%d reads of the bus", n)
		}
		if n := runner.Stats().ProofsRefused; n != uint64(len(wrong)+60*event.MaxProofs) {
			t.Errorf("%d proofs were refused", n)
		}
		if lines.n.Load() != 1 {
			t.Errorf("%d lines in the log", lines.n.Load())
		}
		for _, was := range []*Managed{c, foreign} {
			if got := at(t, m, was.ID); got.Position != was.Position {
				t.Errorf("%+v", got.State)
			}
		}
		if s := runner.Stats(); s.Rollbacks != 0 || epochOf(t, m) != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A lineCounter counts writes: one a line.
type lineCounter struct{ n atomic.Int64 }

func (c *lineCounter) Write(b []byte) (int, error) {
	c.n.Add(1)
	return len(b), nil
}

// TestAProofOfWhatTheBusDoesNotKnow is shown, and nothing is made.
func TestAProofOfWhatTheBusDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		h := f.join(t, m, "one")
		bus.keep(t)
		c := make1(t, m, "a.example")
		bus.rewind(t)
		stop := run(t, m)
		defer stop()
		for range 3 {
			h.put(&event.Receipt{Certificates: []event.Received{holds(c)}, Proofs: [][]byte{c.Current}}, h.key, time.Now())
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if list, err := m.List(t.Context()); err != nil || len(list) != 0 || epochOf(t, m) != 1 {
			t.Errorf("%v, %v", list, err)
		}
		if l := m.Live(Query{}); len(l.Members[0].Unknown) != 1 || l.Members[0].Proofs != 1 {
			t.Errorf("%+v", l.Members)
		}
	})
}

// TestAProofWaitsForTheBus: that it cannot be asked now is no answer.
func TestAProofWaitsForTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, f, m := newRewindableFleet(t)
		c := make1(t, m, "a.example")
		h := f.join(t, m, "one")
		bus.keep(t)
		lost := renew(t, m, c.ID)
		bus.rewind(t)
		asleep := &sleepingBus{Log: bus}
		asleep.set(true)
		runner, err := New(Config{Log: asleep, Board: bus.Board(), Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		defer stop()
		h.prove(lost.Current) // once, and never again
		time.Sleep(time.Hour)
		if epochOf(t, m) != 1 {
			t.Fatal("written by one who cannot write")
		}
		asleep.set(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := at(t, m, c.ID); got.Epoch != 2 {
			t.Errorf("%+v", got.State)
		}
	})
}

// TestForgedProofsDoNotFloodTheBus: a replica can make up as many signers as it
// likes.
func TestForgedProofsDoNotFloodTheBus(t *testing.T) {
	f, _ := newFleet(t)
	log := &gets{Log: f.log}
	m, err := New(Config{Log: log, Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		key, err := seal.GenerateSigningKey()
		if err != nil {
			t.Fatal(err)
		}
		data, err := event.Sign(key, DefaultTenant, time.Now(), &event.Removal{Group: DefaultGroup, ID: event.NewID(), Version: event.Version{Epoch: 1, Generation: 2}})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.prove(t.Context(), DefaultGroup, "liar", data, func(string) *Managed { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Stats(); s.ProofsRefused != 100 || log.n > 1 {
		t.Errorf("%d refused, %d reads", s.ProofsRefused, log.n)
	}
}
