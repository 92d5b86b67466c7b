// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// A partition is the bus as seen by one manager, which can be cut off. What it
// writes meanwhile arrives when the bus is back: either the manager was stopped
// altogether and wakes in the middle of its call, or, if late is set, it gave up
// waiting, and the network has kept what it sent.
type partition struct {
	bus.Log
	late bool
	sent sync.WaitGroup // what is on its way

	mu   sync.Mutex
	gate chan struct{} // guarded by mu; closed while the bus is reached
	// cutAt, if not nil, says before which write the bus is cut off.
	cutAt func(data []byte) bool // guarded by mu
	held  [][]byte               // guarded by mu; what was written while it was cut off
}

func newPartition(log bus.Log) *partition {
	p := &partition{Log: log, gate: make(chan struct{})}
	close(p.gate)
	return p
}

// cut cuts the bus off before the given write that satisfies when, the first
// being 1.
func (p *partition) cut(n int, when func(data []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt = func(data []byte) bool {
		if when(data) {
			n--
		}
		return n == 0
	}
}

func (p *partition) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt = nil
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

func (p *partition) open() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate
}

// wait returns when the bus is reached, or with an error if the manager can give
// up.
func (p *partition) wait(ctx context.Context) error {
	if !p.late {
		<-p.open()
		return nil
	}
	select {
	case <-p.open():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *partition) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := p.wait(ctx); err != nil {
		return bus.Entry{}, err
	}
	return p.Log.Get(ctx, key)
}

func (p *partition) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	p.mu.Lock()
	if p.cutAt != nil && p.cutAt(data) {
		p.gate, p.cutAt = make(chan struct{}), nil
	}
	select {
	case <-p.gate:
	default:
		p.held = append(p.held, data)
	}
	p.mu.Unlock()
	ctx, always := context.WithoutCancel(ctx), ctx
	if err := p.wait(always); err != nil {
		p.sent.Go(func() {
			<-p.open()
			_, _ = p.Log.Append(ctx, key, after, data) // nobody hears the answer
		})
		return bus.Position{}, err
	}
	return p.Log.Append(ctx, key, after, data)
}

func (p *partition) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		for u, err := range p.Log.Follow(ctx, scope, from) {
			if err == nil {
				err = p.wait(ctx)
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

// commits reports whether data commit a generation of a certificate.
func commits(id string, generation uint64) func(data []byte) bool {
	return func(data []byte) bool {
		e, err := event.Trusted(DefaultTenant, data)
		if err != nil {
			return false
		}
		s, ok := e.Body.(*event.State)
		return ok && s.ID == id && s.Generation == generation
	}
}

// serialOf returns the serial of the generation that data commit.
func serialOf(t *testing.T, data []byte) string {
	t.Helper()
	e, err := event.Trusted(DefaultTenant, data)
	if err != nil {
		t.Fatal(err)
	}
	h := e.Body.(*event.State).History
	return string(h[len(h)-1].Serial)
}

// TestAStoppedManagerPublishesNothing: it has its certificate, and is stopped in
// the middle of committing it, for longer than its claim lasts. Another makes
// the generation. When the first wakes, or what it sent arrives, nobody ever
// sees its certificate.
func TestAStoppedManagerPublishesNothing(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f, m := newFleet(t)
			c := make1(t, m, "a.example")
			log := f.log
			cutOff := newPartition(log)
			cutOff.late = late
			cutOff.cut(1, commits(c.ID, 2))
			f.log = cutOff
			defer run(t, f.manager(t, "stopped"))()
			defer cutOff.sent.Wait()
			if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := at(t, m, c.ID); got.Claim == nil || got.Claim.Owner != "stopped" || len(cutOff.held) == 0 {
				t.Fatalf("%+v", got.Claim)
			}
			f.log = log
			defer run(t, f.manager(t, "other"))()
			time.Sleep(ClaimLapse - time.Second)
			if got := at(t, m, c.ID); got.Generation != 1 {
				t.Error("the claim was not respected")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			got := at(t, m, c.ID)
			if got.Generation != 2 {
				t.Fatalf("%+v", got.State)
			}
			cutOff.mend()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			end := at(t, m, c.ID)
			if end.Position != got.Position || len(end.History) != 2 {
				t.Errorf("%+v", end.State)
			}
			for _, data := range cutOff.held {
				if commits(c.ID, 2)(data) && serialOf(t, data) == string(end.History[1].Serial) {
					t.Error("the stopped manager's certificate is the one that counts")
				}
			}
			if string(end.Current) != string(entryAt(t, log, event.CertificateKey(DefaultGroup, c.ID)).Data) {
				t.Error("something else stands for replicas")
			}
		})
	}
}

func entryAt(t *testing.T, log bus.Log, key string) bus.Entry {
	t.Helper()
	entry, err := log.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// published notes every certificate that is ever committed, or stands for
// replicas, by id and version, until the returned function is called.
func published(t *testing.T, log bus.Log) (seen map[string]map[string]bool, stop func()) {
	seen = make(map[string]map[string]bool)
	var mu sync.Mutex
	note := func(what, certificate string) {
		mu.Lock()
		defer mu.Unlock()
		if seen[what] == nil {
			seen[what] = make(map[string]bool)
		}
		seen[what][certificate] = true
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, scope := range []string{event.StateScope, groupsScope} {
		wg.Go(func() {
			for u, err := range log.Follow(ctx, scope, bus.Position{}) {
				if err != nil {
					return
				}
				e, err := event.Trusted(DefaultTenant, u.Data)
				if err != nil {
					continue // the caught-up mark
				}
				if s, ok := e.Body.(*event.State); ok {
					for _, r := range s.History {
						note(fmt.Sprint("committed ", s.ID, r.Version), string(r.Serial))
					}
				} else {
					note(fmt.Sprint("copied ", e.Key, versionOf(e.Body)), string(u.Data))
				}
			}
		})
	}
	return seen, func() {
		cancel()
		wg.Wait()
	}
}

// TestClaimsUnderFire: for a day, three managers are cut off again and again, in
// the middle of whatever they do. Every generation has one certificate, and none
// ends before the next is there.
func TestClaimsUnderFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		log := f.log
		var ids []string
		for n := range 5 {
			c, err := m.Make(t.Context(), Request{Names: []string{fmt.Sprintf("h%d.example", n)}, Lifetime: 40 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, c.ID)
		}
		seen, stop := published(t, log)
		rng := rand.New(rand.NewPCG(7, 7))
		var cuts []*partition
		var orders atomic.Int64
		for n := range 3 {
			p := newPartition(log)
			p.late = n == 1
			cuts = append(cuts, p)
			f.log = p
			runner, i := f.manager(t, fmt.Sprint(n)), new(faultyIssuer)
			wrap(t, runner, i)
			wait := 20 * time.Second * time.Duration(n) // so that the fire meets some of them in the middle
			i.set(func(context.Context) error { orders.Add(1); time.Sleep(wait); return nil })
			defer run(t, runner)()
			defer p.sent.Wait()
		}
		for range 24 * 10 {
			p := cuts[rng.IntN(len(cuts))]
			p.cut(1+rng.IntN(6), func([]byte) bool { return true })
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Minute))))
			for _, id := range ids {
				if c := at(t, m, id); c.leftAt(time.Now()) <= 0 {
					t.Errorf("%s ended at generation %d", id, c.Generation)
				}
			}
			p.mend()
			time.Sleep(time.Duration(rng.Int64N(int64(time.Minute))))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stop()
		generations := 0
		for _, id := range ids {
			c := at(t, m, id)
			generations += int(c.Generation) - 1
			for i, r := range c.History {
				if r.Generation != uint64(i+1) {
					t.Errorf("record %d of %s is generation %d", i, id, r.Generation)
				}
			}
		}
		for key, data := range seen {
			if len(data) != 1 {
				t.Errorf("%s: %d certificates", key, len(data))
			}
		}
		held := 0
		for _, p := range cuts {
			held += len(p.held)
		}
		if held < 20 || len(seen) < 2*generations {
			t.Errorf("%d writes were cut off, %d generations of %d were seen", held, len(seen), generations)
		}
		t.Logf("%d generations from %d orders, %d writes cut off", generations, orders.Load(), held)
	})
}
