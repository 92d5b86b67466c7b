// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// Targets of choosing.
const (
	largeNames    = 100_000 // from here on memory is what the choice waits for
	aboveMap      = 15      // nanoseconds, below largeNames
	timesMap      = 1.3     // from largeNames on
	overCertMagic = 40      // from largeNames on
)

// choose measures the choice among n names.
func (b *bench) choose(n int) (rows []row, err error) {
	f, err := b.newField(n)
	if err != nil {
		return nil, err
	}
	hello, done, err := realHello(f.fallback)
	if err != nil {
		return nil, err
	}
	defer done()
	holders, err := b.hold(f, n, hello)
	defer func() {
		for _, h := range holders {
			h.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	for _, h := range holders {
		if err := h.check(f, hello); err != nil {
			return nil, err
		}
	}
	// The store is measured beside the limits, and again beside the peers: what these do
	// to the processor's cache is not to slow down the limits. There the slices are longer,
	// so that the cache is everybody's own.
	own := 1 + slices.IndexFunc(holders, func(h *holder) bool { return h.name == nameStore })
	for _, how := range []manner{alone, writing, ahead} {
		for _, kind := range kinds {
			limits, err := b.chooseKind(f, kind, holders[:own], hello, how, b.rounds, b.slice)
			if err != nil {
				return rows, err
			}
			peers, err := b.chooseKind(f, kind, holders[own-1:], hello, how, (b.rounds+9)/10, 10*b.slice)
			if err != nil {
				return rows, err
			}
			work := fmt.Sprintf("choose among %s: %s%s", thousands(n), kind, how)
			rows = append(rows, chosen(work, n, limits, peers)...)
		}
	}
	return rows, nil
}

// A manner is how the choice is asked for, as it stands in the table.
type manner string

const (
	alone   manner = ""
	writing manner = ", one replaced per ms"
	ahead   manner = ", back to back"
)

// chooseKind measures those of holders that have an answer.
func (b *bench) chooseKind(f *field, kind string, holders []*holder, hello tls.ClientHelloInfo, how manner, rounds int, slice time.Duration) ([]samples, error) {
	var w *writer
	if how == writing {
		w = newWriter(f)
		defer w.stop()
	}
	var contenders []contender
	for _, h := range holders {
		switch ask := h.ask(f.asked[kind], hello, how == ahead); {
		case !slices.Contains(h.kinds, kind):
		case how != writing:
			contenders = append(contenders, ask)
		case h.replace != nil:
			contenders = append(contenders, w.during(h, ask))
		}
	}
	runtime.GC()
	return interleave(rounds, slice, contenders)
}

// hold returns everything that can hold f, the limits first, then the store.
func (b *bench) hold(f *field, n int, hello tls.ClientHelloInfo) (holders []*holder, err error) {
	add := func(h *holder, failed error) {
		if failed != nil {
			err = errors.Join(err, failed)
		} else {
			holders = append(holders, h)
		}
	}
	if n == 1 {
		add(holdInPointer(f))
	}
	add(holdInMap(f))
	add(holdInStore(f))
	if n <= b.peers {
		add(b.holdInCertMagic(f))
		add(b.holdInAutocert(f, hello))
	}
	if n == 1 {
		add(b.holdInWatcher(f.certs[0]))
		add(b.holdInPemfile(f.certs[0]))
	}
	return holders, err
}

// chosen makes rows of samples: of the limits and, last, the store, whose ratio is that
// to the map; and of the store again and the peers, whose ratio is that to the store.
func chosen(work string, n int, limits, peers []samples) []row {
	of := func(s samples) row {
		return row{Work: work, Contender: s.contender, Figure: spreadOf(s.ns), Unit: "ns", Allocs: &s.allocs}
	}
	var rows []row
	for _, s := range limits {
		rows = append(rows, of(s))
	}
	store, limit, r := limits[len(limits)-1], limits[len(limits)-2], &rows[len(rows)-1]
	r.Ratio, r.Than, r.Above = new(ratio(store, limit)), limit.contender, new(above(store, limit))
	if n < largeNames {
		r.aim(fmt.Sprintf("0 allocs, ≤ %d ns above map", aboveMap), store.allocs == 0 && r.Above.Median <= aboveMap)
	} else {
		r.aim(fmt.Sprintf("0 allocs, ≤ %.1f × map", timesMap), store.allocs == 0 && r.Ratio.Median <= timesMap)
	}
	for _, s := range peers[1:] {
		r := of(s)
		r.Ratio, r.Than = new(ratio(s, peers[0])), nameStore
		if s.contender == nameCertMagic && n >= largeNames {
			r.aim(fmt.Sprintf("≥ %d × Store", overCertMagic), r.Ratio.Median >= overCertMagic)
		}
		rows = append(rows, r)
	}
	return rows
}

// A writer replaces certificates of whoever is being measured, one each millisecond.
type writer struct {
	f      *field
	holder atomic.Pointer[holder]
	failed atomic.Pointer[error]
	ending chan struct{}
	ended  chan struct{}
}

func newWriter(f *field) *writer {
	w := &writer{f: f, ending: make(chan struct{}), ended: make(chan struct{})}
	go w.write()
	return w
}

func (w *writer) write() {
	defer close(w.ended)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-w.ending:
			return
		case <-tick.C:
		}
		h := w.holder.Load()
		if h == nil {
			continue
		}
		at := n % len(w.f.replaced)
		turn := &w.f.turns[at][n/len(w.f.replaced)%2]
		if err := h.replace(w.f.replaced[at], turn); err != nil {
			err = fmt.Errorf("replacing in %s: %w", h.name, err)
			w.failed.CompareAndSwap(nil, &err)
		}
	}
}

// during returns c with the writer at work on h meanwhile.
func (w *writer) during(h *holder, c contender) contender {
	return contender{name: c.name, run: func(times int) error {
		w.holder.Store(h)
		defer w.holder.Store(nil)
		if err := c.run(times); err != nil {
			return err
		}
		if err := w.failed.Load(); err != nil {
			return *err
		}
		return nil
	}}
}

func (w *writer) stop() {
	close(w.ending)
	<-w.ended
}
