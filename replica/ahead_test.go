// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/seal"
)

// numberedUpdates yields n entries, and an error after them, or what comes once ctx has ended.
func numberedUpdates(ctx context.Context, n int, after error) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		for i := range n {
			if !yield(bus.Update{Entry: bus.Entry{Position: bus.Position{Log: "l", Seq: uint64(i + 1)}}}, nil) {
				return
			}
		}
		if after == nil {
			<-ctx.Done()
			after = ctx.Err()
		}
		yield(bus.Update{}, after)
	}
}

// TestAheadInOrder opens the first entries last.
func TestAheadInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		const n = maxAhead / 2
		var begun [n + 1]chan struct{}
		for i := range begun {
			begun[i] = make(chan struct{})
		}
		open := func(e bus.Entry) *opened {
			i := e.Position.Seq - 1
			if i < n-1 {
				<-begun[i+1] // ends only if the next is opened at the same time
			}
			close(begun[i])
			return new(opened)
		}
		failed := errors.New("the bus failed")
		next := uint64(0)
		for u, err := range ahead(ctx, stop, numberedUpdates(ctx, n, failed), open) {
			if next++; next <= n && (err != nil || u.Position.Seq != next || u.opened == nil) || next > n && !errors.Is(err, failed) {
				t.Fatalf("update %d: %+v, %v", next, u, err)
			}
		}
		if next != n+1 {
			t.Errorf("%d updates, want %d and the error", next, n)
		}
	})
}

// TestAheadOfASilentBus has everything taken that a bus said before it fell silent.
func TestAheadOfASilentBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		taken := 0
		go func() {
			for range ahead(ctx, stop, numberedUpdates(ctx, 3*maxAhead, nil), func(bus.Entry) *opened { return nil }) {
				taken++
			}
		}()
		synctest.Wait()
		if taken != 3*maxAhead {
			t.Errorf("%d of %d were taken", taken, 3*maxAhead)
		}
		stop()
	})
}

// TestAheadIsBounded has a bus that gives without end to who takes nothing.
func TestAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		given := 0
		updates := func(yield func(bus.Update, error) bool) {
			for yield(bus.Update{}, nil) {
				given++
			}
		}
		for range ahead(ctx, stop, updates, func(bus.Entry) *opened { return nil }) {
			synctest.Wait()
			break
		}
		if given < maxAhead || given > maxAhead+2 {
			t.Errorf("%d were taken from the bus ahead of the first, want %d", given, maxAhead)
		}
	})
}

// TestTrustThatChangedSince hands the replica what was opened before its managers
// changed: what they are when it is applied counts.
func TestTrustThatChangedSince(t *testing.T) {
	f, ca := newFixture(t), newCA(t)
	stranger, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	known, others := *f.managers.Load(), []*seal.VerifyKey{stranger.Public()}
	entry := f.next(t, ca)
	deliver := func(opened, applied []*seal.VerifyKey) {
		f.managers.Store(&opened)
		u := update{Update: bus.Update{Entry: entry}, opened: f.Replica.open(entry)}
		f.managers.Store(&applied)
		f.take(u)
	}
	deliver(known, others)
	if s := f.Status(); s.Refused[RefusedSigner] != 1 || s.Certificates != 0 {
		t.Errorf("signed by a manager that was trusted: %+v", s)
	}
	deliver(others, known)
	if s := f.Status(); s.Refused[RefusedSigner] != 1 || s.Certificates != 1 {
		t.Errorf("signed by a manager that is trusted by now: %+v", s)
	}
}
