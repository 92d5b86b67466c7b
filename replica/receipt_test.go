// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// A notedBoard notes what is put on a board, or fails.
type notedBoard struct {
	bus.Board

	mu    sync.Mutex
	err   error
	hangs bool
	puts  []put
}

type put struct {
	key string
	at  time.Time
}

func (b *notedBoard) Put(ctx context.Context, key string, data []byte) error {
	b.mu.Lock()
	b.puts = append(b.puts, put{key, time.Now()})
	err, hangs := b.err, b.hangs
	b.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return b.Board.Put(ctx, key, data)
}

func (b *notedBoard) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		err := b.err
		return func(yield func(bus.Update, error) bool) { yield(bus.Update{}, err) }
	}
	return b.Board.Follow(ctx, scope, from)
}

// taken returns what was put since the last call.
func (b *notedBoard) taken() []put {
	b.mu.Lock()
	defer b.mu.Unlock()
	puts := b.puts
	b.puts = nil
	return puts
}

// newNotedFleet returns a fleet and its board.
func newNotedFleet(t testing.TB) (*fleet, *notedBoard) {
	t.Helper()
	log := newTape()
	board := &notedBoard{Board: log.board}
	log.board = board
	return newFleetOn(t, log), board
}

func (f *fleet) remove(id string, generation uint64) {
	f.t.Helper()
	f.put(event.CertificateKey("default", id), f.sign(&event.Removal{Group: "default", ID: id, Version: event.Version{Epoch: 1, Generation: generation}}))
}

func TestAReceiptSaysWhatIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newNotedFleet(t)
		leaf := f.publish(id1, 3, "a.example")
		f.remove(id2, 2)
		dir, m := f.joined()
		c := inDir(dir)
		c.Program = "v1.2.3"
		opened := time.Now()
		time.Sleep(time.Minute)
		r := f.open(c)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		pages := f.receipt(m)
		if len(pages) != 1 {
			t.Fatalf("%d pages", len(pages))
		}
		p := pages[0]
		if p.Program != "v1.2.3" || !p.Started.Equal(opened.Add(time.Minute)) || !p.Following || p.Error != "" ||
			p.Position != r.Status().Position.String() || !p.Budget.Equal(leaf.NotAfter) ||
			len(p.Keys) != 1 || p.Keys[0] != f.groupKey.Public().ID() {
			t.Errorf("%+v", p)
		}
		if len(p.Certificates) != 2 {
			t.Fatalf("%+v", p.Certificates)
		}
		one, two := p.Certificates[0], p.Certificates[1]
		if one.ID != id1 || one.Generation != 3 || one.Served.IsZero() || one.Lag != time.Minute || one.At.IsZero() {
			t.Errorf("%+v", one)
		}
		if two.ID != id2 || !two.Removed || two.Generation != 2 || !two.Served.IsZero() {
			t.Errorf("%+v", two)
		}
		if got := r.Served(); len(got) != 2 || got[0].ID != id1 {
			t.Errorf("served %+v", got)
		}
	})
}

func TestReceiptsAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, board := newNotedFleet(t)
		dir, m := f.joined()
		f.open(inDir(dir))
		synctest.Wait()
		for i := range 1000 {
			f.remove(id1, uint64(i+1))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		puts := board.taken()
		for i := 1; i < len(puts); i++ {
			if d := puts[i].at.Sub(puts[i-1].at); d < time.Second {
				t.Errorf("two receipts within %s", d)
			}
		}
		if len(puts) < 9 || len(puts) > 13 {
			t.Errorf("%d receipts in 12 seconds", len(puts))
		}
		if c := f.receipt(m)[0].Certificates; len(c) != 1 || c[0].Generation != 1000 {
			t.Errorf("the last receipt has %+v", c)
		}
		// Nothing changes: once a minute. A change: a second later at the latest.
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(board.taken()); n < 9 || n > 10 {
			t.Errorf("%d receipts in ten minutes", n)
		}
		f.remove(id1, 1001)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(board.taken()); n != 1 {
			t.Errorf("%d receipts a second after a change", n)
		}
	})
}

func TestReceiptsHavePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, board := newNotedFleet(t)
		var last string
		for range 2500 {
			id := event.NewID()
			last = max(last, id)
			f.remove(id, 1)
		}
		dir, m := f.joined()
		f.open(inDir(dir))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		pages := f.receipt(m)
		if len(pages) != 3 || len(pages[0].Certificates) != 1000 || len(pages[1].Certificates) != 1000 || len(pages[2].Certificates) != 500 {
			t.Fatalf("%d pages", len(pages))
		}
		var ids []string
		for i, p := range pages {
			if p.Page != uint64(i) || p.Pages != 3 {
				t.Errorf("page %d of %d at %d", p.Page, p.Pages, i)
			}
			for _, c := range p.Certificates {
				if len(ids) > 0 && ids[len(ids)-1] >= c.ID {
					t.Fatalf("%s after %s", c.ID, ids[len(ids)-1])
				}
				ids = append(ids, c.ID)
			}
		}
		board.taken()
		f.remove(last, 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		puts := board.taken()
		if len(puts) != 2 || !strings.HasSuffix(puts[0].key, "/2") || !strings.HasSuffix(puts[1].key, "/0") {
			t.Errorf("rewritten: %v", puts)
		}
		if got := f.receipt(m)[2].Certificates; got[len(got)-1].Generation != 2 {
			t.Error("the changed page was not rewritten")
		}
		// A board may lose what it has: each page comes again.
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		again := make(map[string]bool)
		for _, p := range board.taken() {
			again[p.key] = true
		}
		if len(again) != 3 {
			t.Errorf("said again in five minutes: %v", again)
		}
	})
}

// A thousand failures with long texts still fit.
func TestReceiptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newNotedFleet(t)
		dir, m := f.joined()
		f.open(inDir(dir))
		long := strings.Repeat("x", 63)
		for range 1000 {
			id := event.NewID()
			f.remove(id, 1)
			synctest.Wait()
			data, err := event.Sign(f.signer, long, time.Now(), &event.Removal{Group: long, ID: id, Version: event.Version{Epoch: 1, Generation: 2}})
			if err != nil {
				t.Fatal(err)
			}
			f.put(event.CertificateKey("default", id), data)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		pages := f.receipt(m)
		if len(pages) != 1 || len(pages[0].Certificates) != 1000 {
			t.Fatalf("%d pages", len(pages))
		}
		for _, c := range pages[0].Certificates {
			if c.Error == "" {
				t.Fatalf("no error: %+v", c)
			}
		}
	})
}

func TestABoardThatFailsChangesNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		hangs bool
	}{{"fails", errors.New("no board here"), false}, {"hangs", nil, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, board := newNotedFleet(t)
				dir, _ := f.joined()
				board.err, board.hangs = c.err, c.hangs
				r := f.open(inDir(dir))
				for i := range 20 {
					leaf := f.publish(id1, uint64(i+1), "a.example")
					synctest.Wait()
					wantServed(t, r, "a.example", leaf)
					time.Sleep(5 * time.Second)
				}
				if s := r.Status(); !s.Following || s.LastError != nil || s.Differs || s.Applied != 20 {
					t.Errorf("%+v", s)
				}
				if n := len(board.taken()); n == 0 || n > 100 {
					t.Errorf("tried %d times", n)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Without a membership, or without a board, nothing is reported.
func TestNothingIsReportedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, board := newNotedFleet(t)
		leaf := f.publish(id1, 1, "a.example")
		c := f.config()
		r := f.open(c)
		wantServed(t, r, "a.example", leaf)
		dir, _ := f.joined()
		c = inDir(dir)
		c.Log = struct{ bus.Log }{f.log}
		r = f.open(c)
		wantServed(t, r, "a.example", leaf)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if puts := board.taken(); len(puts) != 0 {
			t.Errorf("%v", puts)
		}
		if s := r.Status(); s.Silent || s.Member == "" {
			t.Errorf("%+v", s)
		}
	})
}
