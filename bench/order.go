// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// timesPolled is the most that an order may take as a multiple of one by the client
// that looks every millisecond.
const timesPolled = 1.2

// order measures how long a certificate takes from a CA that is near: by polling that
// adapts, by looking every millisecond, and by acmez as it is.
func (b *bench) order() ([]row, error) {
	ca, done, err := startPebble()
	if err != nil {
		return nil, err
	}
	defer done()
	limit, err := newBare(ca, func(time.Duration) time.Duration { return time.Millisecond })
	if err != nil {
		return nil, err
	}
	defer limit.close()
	own, err := newBare(ca, nil)
	if err != nil {
		return nil, err
	}
	defer own.close()
	other, err := newPeer(ca, 0)
	if err != nil {
		return nil, err
	}
	defer other.close()
	one := func(name string, c client) contender {
		return contender{name: name, run: func(times int) error {
			for range times {
				if err := c.obtain(host(0)); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		}}
	}
	pair, err := interleave(b.orders, time.Millisecond, []contender{one("every ms", limit), one("adaptive", own)})
	if err != nil {
		return nil, err
	}
	peers, err := interleave(max(3, b.orders/20), time.Millisecond, []contender{one("adaptive", own), one("acmez", other)})
	if err != nil {
		return nil, err
	}
	const work = "order a certificate"
	rows := []row{ordered(work, pair[0], nil, 1), ordered(work, pair[1], &pair[0], 1), ordered(work, peers[1], &peers[0], 1)}
	rows[1].aim(fmt.Sprintf("≤ %.1f × %s", timesPolled, pair[0].contender), rows[1].Ratio.Median <= timesPolled)
	return rows, nil
}

// ordered makes a row of samples of batches of n certificates, whose ratio is that to
// another's unless that is nil.
func ordered(work string, s samples, than *samples, n int) row {
	each := make([]float64, len(s.ns))
	for i, ns := range s.ns {
		each[i] = ns / float64(n)
	}
	r := row{Work: work, Contender: s.contender, Figure: spreadOf(each), Unit: "ns"}
	if than != nil {
		r.Ratio, r.Than = new(ratio(s, *than)), than.contender
	}
	return r
}
