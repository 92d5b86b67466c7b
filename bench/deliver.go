// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

const (
	nameHeard   = "subscription, verified"
	nameFollow  = "Follow, verified"
	nameSwapped = "subscription, swapped in"
	nameReplica = "replica"
	nameWatch   = "KV watch"
	nameCurrent = "Follow"

	timesHeard = 1.25
	timesWatch = 0.6
)

// deliver measures what it costs, server included, to bring one renewal to each of many
// replicas: the processor time of a delivery.
func (b *bench) deliver() ([]row, error) {
	f, err := b.newFleet()
	if err != nil {
		return nil, err
	}
	defer f.close()
	n := b.fleet
	kinds := []struct {
		name string
		one  func(*clients) (func(), error)
	}{{nameHeard, listen(verify)}, {nameFollow, follow(verify)}, {nameSwapped, func(c *clients) (func(), error) { return listen(swap())(c) }}, {nameReplica, serve}}
	all := make([]*clients, len(kinds))
	costs := make([]samples, len(kinds))
	for i, k := range kinds {
		done := b.stage("connect %s: %s", thousands(n), k.name)
		if all[i], err = f.clients(k.name, fmt.Sprint("web", i), n, k.one); err != nil {
			return nil, err
		}
		defer all[i].close()
		costs[i].contender = k.name
		done()
	}
	const each = 4
	for round := range b.deliveries + 1 {
		for _, i := range rand.Perm(len(kinds)) {
			entries, err := f.entries(b, all[i].group, each, uint64(round+1))
			if err != nil {
				return nil, err
			}
			runtime.GC() // which replicas would not share
			before := cpuTime()
			if err := all[i].deliver(entries); err != nil {
				return nil, err
			}
			if round > 0 { // the first is to warm up
				costs[i].ns = append(costs[i].ns, float64(cpuTime()-before)/float64(n*each))
			}
		}
	}
	work := fmt.Sprintf("one renewal to %s replicas, CPU each", thousands(n))
	var rows []row
	for i, s := range costs {
		r := row{Work: work, Contender: s.contender, Figure: spreadOf(s.ns), Unit: "ns"}
		if i%2 == 1 {
			r.Ratio, r.Than = new(ratio(s, costs[i-1])), costs[i-1].contender
			r.aim(fmt.Sprintf("≤ %.2f × %s", timesHeard, r.Than), r.Ratio.Median <= timesHeard)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// entries makes a generation of n certificates.
func (f *fleet) entries(b *bench, group string, n int, generation uint64) ([]bus.Entry, error) {
	entries := make([]bus.Entry, n)
	return entries, inParallel(n, func(i int) error {
		id := managedID(i)
		data, err := f.certificate(b, group, id, generation, host(i))
		entries[i] = bus.Entry{Key: event.CertificateKey(group, id), Data: data}
		return err
	})
}

// current measures what it costs to keep many replicas current for a while in which now
// and then something is renewed, beside a key-value watch for each.
func (b *bench) current() ([]row, error) {
	kinds := []struct {
		name string
		one  func(*clients) (func(), error)
	}{{nameWatch, watch}, {nameCurrent, follow(func(*clients, string, []byte) error { return nil })}}
	var rows []row
	for i, k := range kinds {
		figures, err := b.currentOf(k.name, k.one)
		if err != nil {
			return nil, err
		}
		r := row{Work: fmt.Sprintf("keep %s replicas current, CPU a second", thousands(b.storm)), Contender: k.name, Figure: figures, Unit: "ns"}
		if i > 0 {
			times := figures.Median / rows[0].Figure.Median
			r.Ratio, r.Than = new(exactly(times)), rows[0].Contender
			r.aim(fmt.Sprintf("≤ %.1f × %s", timesWatch, nameWatch), times <= timesWatch)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) currentOf(name string, one func(*clients) (func(), error)) (figures spread, err error) {
	f, err := b.newFleet()
	if err != nil {
		return figures, err
	}
	defer f.close()
	if name == nameWatch {
		if err := f.watchable(); err != nil {
			return figures, err
		}
	}
	done := b.stage("connect %s: %s", thousands(b.storm), name)
	c, err := f.clients(name, "web", b.storm, one)
	if err != nil {
		return figures, err
	}
	defer c.close()
	done()
	var costs []float64
	for round := range b.periods + 1 {
		entries, err := f.entries(b, "web", 1, uint64(round+1))
		if err != nil {
			return figures, err
		}
		runtime.GC() // which replicas would not share
		start, before := time.Now(), cpuTime()
		if err := c.deliver(entries); err != nil {
			return figures, err
		}
		time.Sleep(time.Until(start.Add(b.period)))
		if round > 0 {
			costs = append(costs, float64(cpuTime()-before)/time.Since(start).Seconds())
		}
	}
	return spreadOf(costs), nil
}

// watchable makes a bucket into which the fleet's entries go instead of the log.
func (f *fleet) watchable() error {
	nc, js, err := f.dial()
	if err != nil {
		return err
	}
	// As CreateKeyValue does, but for as many consumers as there are to be.
	if _, err := js.CreateStream(context.Background(), natsjs.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"}, MaxMsgsPerSubject: 1, AllowRollup: true, DenyDelete: true,
		AllowDirect: true, Discard: natsjs.DiscardNew, MaxConsumers: 50_000,
	}); err != nil {
		return err
	}
	kv, err := js.KeyValue(context.Background(), bucket)
	if err != nil {
		return err
	}
	f.put = func(key string, data []byte) error {
		_, err := kv.Put(context.Background(), dotted(key), data)
		return err
	}
	f.ends = append(f.ends, nc.Close)
	return nil
}
