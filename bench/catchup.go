// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

const (
	nameVerify  = "Ed25519, all cores"
	nameCatchUp = "replica"
	nameRead    = "reading the files"
	nameStart   = "replica, first handshake"

	// shareOfVerify is how much of the rate at which the signatures alone can be
	// verified a new replica has to reach.
	shareOfVerify = 0.6
	timesRead     = 3.0
	mostMemory    = 250 << 20
)

// catchUp measures how long a new replica takes to have all of a group, and how soon
// it serves again after a restart.
func (b *bench) catchUp() ([]row, error) {
	f, err := b.newFleet()
	if err != nil {
		return nil, err
	}
	defer f.close()
	entries, err := f.fill(b, "web", b.caughtUp)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := inParallel(len(entries), func(i int) error {
		_, err := f.open(entries[i].Key, entries[i].Data)
		return err
	}); err != nil {
		return nil, err
	}
	verified := time.Since(start)
	_, conn, err := f.join("web")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	config := replica.Config{
		Managers: []*seal.VerifyKey{f.signer.Public()}, Keys: []*seal.PrivateKey{f.key}, Group: "web", Log: conn,
		Snapshot: filepath.Join(f.dir, "snapshot"), Logger: quiet(),
	}
	done := b.stage("catch up with %s certificates", thousands(len(entries)))
	start = time.Now()
	r, err := replica.Open(context.Background(), config)
	if err != nil {
		return nil, err
	}
	took := time.Since(start)
	done()
	if n := r.Store().Len(); n != len(entries) {
		err = fmt.Errorf("the replica has %d of %d certificates", n, len(entries))
	}
	b.prove(r)
	if closed := r.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	work := fmt.Sprintf("catch up with %s certificates", thousands(len(entries)))
	rows := []row{
		{Work: work, Contender: nameVerify, Figure: exactly(float64(verified)), Unit: "ns"},
		{Work: work, Contender: nameCatchUp, Figure: exactly(float64(took)), Unit: "ns"},
	}
	share := verified.Seconds() / took.Seconds()
	rows[1].Ratio, rows[1].Than = new(exactly(took.Seconds()/verified.Seconds())), nameVerify
	rows[1].aim(fmt.Sprintf("≥ %.1f of its rate", shareOfVerify), share >= shareOfVerify)
	more, err := b.startAgain(f, config)
	return append(rows, more...), err
}

// prove waits until a replica has opened and checked what it got.
func (b *bench) prove(r *replica.Replica) {
	defer b.stage("open and check them")()
	for slices.ContainsFunc(r.Served(), func(c event.Received) bool { return c.Served.IsZero() && c.Error == "" }) {
		time.Sleep(time.Second) // looking through all of them takes a while
	}
}

// fill appends n certificates of a group.
func (f *fleet) fill(b *bench, group string, n int) ([]bus.Entry, error) {
	defer b.stage("append %s certificates", thousands(n))()
	entries, err := f.entries(b, group, n, 1)
	if err != nil {
		return nil, err
	}
	return entries, inParallel(n, func(i int) error { return f.append(entries[i].Key, entries[i].Data) })
}
