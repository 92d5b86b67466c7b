// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// timesBare is the most that a renewal by a manager may take as a multiple of an
	// order of the same client without one.
	timesBare = 1.3
	// atOnce is how many renewals run at once: as many as a manager has.
	atOnce = 8
)

// renew measures what a manager adds to the orders that it makes: one after the other,
// and by its queue.
func (b *bench) renew() ([]row, error) {
	ca, done, err := startPebble()
	if err != nil {
		return nil, err
	}
	defer done()
	own, err := newBare(ca, nil)
	if err != nil {
		return nil, err
	}
	defer own.close()
	other, err := newPeer(ca, time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer other.close()
	var managers []*managed
	defer func() {
		for _, m := range managers {
			m.close()
		}
	}()
	for _, open := range []func() (*managed, error){b.manageInMemory, b.manageOnNATS} {
		m, err := open()
		if err != nil {
			return nil, err
		}
		managers = append(managers, m)
		if err := m.begin(ca, b.renewals); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	var rows []row
	for _, n := range []int{1, b.renewals} {
		work, rounds := "renew, one after the other", b.orders
		contenders := []contender{line("Keyturn's client", own, n), line("acmez, every ms", other, n)}
		for _, m := range managers {
			c := contender{name: m.name, run: m.one}
			if n > 1 {
				c.run, c.ready = m.all, m.mark
			}
			contenders = append(contenders, c)
		}
		if n > 1 {
			work, rounds = fmt.Sprintf("renew, %d at once", atOnce), max(3, b.orders/4)
		}
		all, err := interleave(rounds, time.Millisecond, contenders)
		if err != nil {
			return nil, err
		}
		rows = append(rows, ordered(work, all[0], nil, n))
		for _, s := range all[1:] {
			r := ordered(work, s, &all[0], n)
			if s.contender == nameOnNATS {
				r.aim(fmt.Sprintf("≤ %.1f × %s", timesBare, all[0].contender), r.Ratio.Median <= timesBare)
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// line obtains n certificates without a manager, as many at once as one would.
func line(name string, c client, n int) contender {
	return contender{name: name, run: func(times int) error {
		for range times {
			if err := obtainAll(c, n); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}}
}

func obtainAll(c client, n int) error {
	queue := make(chan int, n)
	for i := range n {
		queue <- i
	}
	close(queue)
	errs := make([]error, n)
	var workers sync.WaitGroup
	for range min(n, atOnce) {
		workers.Go(func() {
			for i := range queue {
				errs[i] = c.obtain(host(i))
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}
