// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	nameOrdered = "ordered consumers"
	timesStorm  = 1.5
)

// errTwice is of a client that got an entry twice, or lost one and got another twice.
var errTwice = errors.New("more has come than was appended")

// restart measures how long after a restart of the bus everybody has what was appended
// since, from when the server takes connections.
func (b *bench) restart() ([]row, error) {
	kinds := []struct {
		name string
		one  func(*clients) (func(), error)
	}{{nameOrdered, order}, {nameCurrent, follow(func(*clients, string, []byte) error { return nil })}}
	work := fmt.Sprintf("the bus restarts under %s replicas", thousands(b.storm))
	var rows []row
	for i, k := range kinds {
		s, err := b.restartOf(k.name, k.one)
		if err != nil {
			return nil, err
		}
		r := row{Work: work, Contender: k.name, Figure: spreadOf(s), Unit: "ns"}
		if i > 0 {
			times := r.Figure.Median / rows[0].Figure.Median
			r.Ratio, r.Than = new(exactly(times)), rows[0].Contender
			r.aim(fmt.Sprintf("≤ %.1f × %s", timesStorm, nameOrdered), times <= timesStorm)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) restartOf(name string, one func(*clients) (func(), error)) (took []float64, err error) {
	f, err := b.newFleetApart()
	if err != nil {
		return nil, err
	}
	defer func() { f.close() }()
	done := b.stage("connect %s: %s", thousands(b.storm), name)
	c, err := f.clients(name, "web", b.storm, one)
	if err != nil {
		return nil, err
	}
	defer c.close()
	done()
	entries, err := f.entries(b, "web", 10, 1)
	if err == nil {
		err = c.deliver(entries)
	}
	for round := range b.storms {
		if err != nil {
			return nil, err
		}
		if entries, err = f.entries(b, "web", 10, uint64(round+2)); err != nil {
			return nil, err
		}
		f.stop()
		listens := listens(f.config.Listen)
		if err = f.start(); err != nil {
			return nil, err
		}
		start := <-listens
		if err = c.deliver(entries); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(start)))
		time.Sleep(b.period / 4) // for what comes again
		if more := c.came.Load() - c.want.Load(); more != 0 {
			err = fmt.Errorf("%s: %d: %w", name, more, errTwice)
		}
	}
	return took, err
}

// listens returns a channel on which it says when a server took its first connection,
// which is before it has started for those who wait for that.
func listens(addr string) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if c, err := net.Dial("tcp", addr); err == nil {
				at <- time.Now()
				_ = c.Close() // it was only to see
				return
			}
		}
	}()
	return at
}
