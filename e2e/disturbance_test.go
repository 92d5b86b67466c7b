// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A disturbance stops, continues and kills managers.
type disturbance struct {
	f       *managers
	steady  sync.Mutex // held while the manager with the bus is disturbed, and by who needs it
	stop    chan struct{}
	workers sync.WaitGroup
	stops   atomic.Int64
	kills   atomic.Int64
	starts  atomic.Int64 // that found no bus
}

func newDisturbance(f *managers, start uint64) *disturbance {
	d := &disturbance{f: f, stop: make(chan struct{})}
	others := f.all[1:]
	const workers = 3
	for w := range workers {
		random := rand.New(rand.NewPCG(start, uint64(w+1)))
		d.workers.Go(func() {
			for d.pause(random, 2*time.Second) {
				own := others[w*len(others)/workers : (w+1)*len(others)/workers]
				d.disturb(own[random.IntN(len(own))], random)
			}
		})
	}
	random := rand.New(rand.NewPCG(start, 0))
	d.workers.Go(func() {
		for d.pause(random, 30*time.Second) {
			d.whileSteady(func() { d.disturb(f.all[0], random) })
		}
	})
	return d
}

func (d *disturbance) String() string {
	return fmt.Sprintf("%d times a manager was stopped and continued, %d times killed; %d starts found no bus", d.stops.Load(), d.kills.Load(), d.starts.Load())
}

// whileSteady runs what the bus must be there for.
func (d *disturbance) whileSteady(do func()) {
	d.steady.Lock()
	defer d.steady.Unlock()
	do()
}

// pause waits for a random time, and reports whether to go on.
func (d *disturbance) pause(random *rand.Rand, most time.Duration) bool {
	select {
	case <-d.stop:
		return false
	case <-time.After(time.Duration(random.Int64N(int64(most)))):
		return !d.f.t.Failed()
	}
}

// disturb leaves the manager running.
func (d *disturbance) disturb(m *daemon, random *rand.Rand) {
	what, long := random.IntN(3), time.Duration(random.Int64N(int64(3*time.Second)))
	p := m.now()
	signal := func(sig syscall.Signal) {
		if err := p.signal(sig); err != nil {
			d.f.t.Error(err)
		}
	}
	if what != 2 {
		d.stops.Add(1)
		signal(syscall.SIGSTOP)
		time.Sleep(long) // the random moment
	}
	if what == 0 {
		signal(syscall.SIGCONT)
		return
	}
	d.kills.Add(1)
	signal(syscall.SIGKILL)
	if _, err := p.wait(); err != nil {
		d.f.t.Error(err)
		return
	}
	before := len(m.runs)
	if err := d.f.restart(m); err != nil {
		d.f.t.Error(err)
	}
	d.starts.Add(int64(len(m.runs) - before - 1))
}

// end returns when all managers run undisturbed.
func (d *disturbance) end() {
	close(d.stop)
	d.workers.Wait()
}
