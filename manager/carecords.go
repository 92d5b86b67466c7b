// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// listShard has the number of the newest list of what is revoked.
const listShard = "0"

// maxByHand is how many records a shard has when nothing more is signed by hand: the
// rest is for what has to be revoked.
const maxByHand = event.MaxCARecords * 3 / 4

// caRecords reads a shard of what a built-in CA remembers; an empty one if there is
// none yet. Unlike a budget, one that cannot be believed is an error: what is
// revoked must not be forgotten.
func (m *Manager) caRecords(ctx context.Context, name, shard string) (*event.CARecords, bus.Position, error) {
	r, at, err := get[*event.CARecords](ctx, m, event.CARecordsKey(name, shard))
	if isNotFound(err) {
		return &event.CARecords{Issuer: name, Shard: shard}, at, nil
	}
	if err != nil {
		return nil, at, fmt.Errorf("reading what issuer %q remembers of certificates: %w", name, err)
	}
	return r, at, nil
}

// updateRecords changes a shard. What is needed no more is left out.
func (b *builtIn) updateRecords(ctx context.Context, shard string, change func(*event.CARecords) error) error {
	for {
		r, at, err := b.m.caRecords(ctx, b.name, shard)
		if err != nil {
			return err
		}
		now := time.Now()
		r.Records = slices.DeleteFunc(r.Records, func(r event.CARecord) bool { return now.After(b.Keep(r.NotAfter)) })
		if err := change(r); err != nil {
			return err
		}
		if _, err := b.m.append(ctx, at, r); !conflict(err) {
			crash.Point(crash.CARecorded)
			return err
		}
	}
}

// note changes what is remembered of a certificate, or begins with r.
func (b *builtIn) note(ctx context.Context, r event.CARecord, change func(*event.CARecord)) error {
	r.Fit()
	return b.updateRecords(ctx, shardOf(r.Serial), func(all *event.CARecords) error {
		i, known := slices.BinarySearchFunc(all.Records, r.Serial, bySerial)
		if !known {
			most := event.MaxCARecords
			if !r.Signed.IsZero() {
				most = maxByHand
			}
			if len(all.Records) >= most {
				return &InvalidError{fmt.Sprintf("issuer %q remembers as many certificates as it can that are signed by hand or revoked, and have not ended: sign for less time, have a manager renew them, or make another issuer", b.name)}
			}
			all.Records = slices.Insert(all.Records, i, r)
		}
		change(&all.Records[i])
		return nil
	})
}

func bySerial(r event.CARecord, serial []byte) int { return bytes.Compare(r.Serial, serial) }

// shardOf returns the shard of a serial number, which is not empty and random in
// its last byte.
func shardOf(serial []byte) string { return shards[serial[len(serial)-1]&0xf] }

// allRecords returns what a built-in CA remembers, by serial number.
func (m *Manager) allRecords(ctx context.Context, name string) ([]event.CARecord, error) {
	var list []event.CARecord
	for _, shard := range shards {
		r, _, err := m.caRecords(ctx, name, shard)
		if err != nil {
			return nil, err
		}
		list = append(list, r.Records...)
	}
	slices.SortFunc(list, func(a, b event.CARecord) int { return bySerial(a, b.Serial) })
	return list, nil
}
