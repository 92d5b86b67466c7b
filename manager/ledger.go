// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// A ledger keeps budgets on the bus, for all managers together.
type ledger struct {
	// load returns a shard; an empty one if there is none yet.
	load func(ctx context.Context, issuer, shard string) (*event.Budget, bus.Position, error)
	// save replaces it; the error is a conflict if another manager did.
	save func(ctx context.Context, b *event.Budget, after bus.Position) error
	// every is how often the schedule looks: orders that are drawn evenly may come
	// together that one look after the other would have made.
	every time.Duration
}

// loadBudget reads a shard. One that cannot be believed counts as empty, so that
// nothing that went wrong with a budget stops a renewal: the CA has the last word.
func (m *Manager) loadBudget(ctx context.Context, issuer, shard string) (*event.Budget, bus.Position, error) {
	b := &event.Budget{Issuer: issuer, Shard: shard}
	key := event.BudgetKey(issuer, shard)
	entry, err := m.newest(ctx, key)
	if err != nil {
		return nil, bus.Position{}, &busError{fmt.Errorf("reading the budget of issuer %q: %w", issuer, err)}
	}
	if len(entry.Data) == 0 {
		return b, entry.Position, nil
	}
	e, err := m.open(ctx, key, entry.Data)
	if err != nil {
		m.logger.Error("a budget cannot be believed and is begun anew", "issuer", issuer, "key", key, "error", err)
		return b, entry.Position, nil
	}
	if known, ok := e.Body.(*event.Budget); ok {
		b = known
	}
	return b, entry.Position, nil
}

func (m *Manager) saveBudget(ctx context.Context, b *event.Budget, after bus.Position) error {
	_, err := m.append(ctx, after, b)
	crash.Point(crash.BudgetWritten)
	return err
}

// take makes all draws, or none: then it returns what they wait for. Of several
// managers at once, each sees what the others drew. One that loses the last of a
// bucket to another after it drew on the others has drawn too much, which keeps
// within the limits.
func (l ledger) take(ctx context.Context, issuer string, list []draw) (*HeldError, error) {
	byShard := make(map[string][]draw)
	for _, d := range list {
		byShard[d.shard] = append(byShard[d.shard], d)
	}
	open := make(map[string]*sheet)
	for shard, draws := range byShard {
		p := &sheet{draws: draws}
		if err := p.load(ctx, l, issuer, shard); err != nil {
			return nil, err
		}
		open[shard] = p
	}
	if held := heldBy(issuer, open); held != nil {
		return held, nil
	}
	for shard, p := range open {
		for {
			changed := p.draw(time.Now())
			if !changed {
				break
			}
			err := l.save(ctx, p.budget, p.at)
			if err == nil {
				break
			}
			if !conflict(err) {
				return nil, fmt.Errorf("drawing on the budget of issuer %q: %w", issuer, err)
			}
			if err := p.load(ctx, l, issuer, shard); err != nil {
				return nil, err
			}
			if held := heldBy(issuer, map[string]*sheet{shard: p}); held != nil {
				return held, nil
			}
		}
	}
	return nil, nil
}

// A sheet is a shard that is drawn on.
type sheet struct {
	draws  []draw
	budget *event.Budget
	at     bus.Position
}

func (p *sheet) load(ctx context.Context, l ledger, issuer, shard string) (err error) {
	p.budget, p.at, err = l.load(ctx, issuer, shard)
	return err
}

// full is when a bucket is full.
func (p *sheet) full(key string) time.Time {
	i, ok := find(p.budget.Buckets, key)
	if !ok {
		return time.Time{}
	}
	return p.budget.Buckets[i].Full
}

func find(list []event.Bucket, key string) (int, bool) {
	return slices.BinarySearchFunc(list, key, func(b event.Bucket, key string) int { return cmp.Compare(b.Key, key) })
}

// draw draws, and reports whether anything changed.
func (p *sheet) draw(now time.Time) (changed bool) {
	for _, d := range p.draws {
		switch {
		case d.back:
			p.budget.Buckets = put(p.budget.Buckets, event.Bucket{Key: d.key, Full: d.rate.Return(p.full(d.key), now)}, now)
			changed = true
		case !d.look:
			p.budget.Buckets = put(p.budget.Buckets, event.Bucket{Key: d.key, Full: d.rate.Draw(p.full(d.key), now)}, now)
			changed = true
		}
	}
	return changed
}

// put writes a bucket down. Now and then, when one is added, it lets go of those
// that are full.
func put(list []event.Bucket, b event.Bucket, now time.Time) []event.Bucket {
	i, ok := find(list, b.Key)
	if ok {
		list[i] = b
		return list
	}
	list = slices.Insert(list, i, b)
	if len(list)%tidyEvery == 0 || len(list) > event.MaxBuckets {
		return kept(list, now)
	}
	return list
}

// kept leaves out the buckets that are full, and, where there are more than an
// entry holds, those that will be soonest: they say the least.
func kept(list []event.Bucket, now time.Time) []event.Bucket {
	list = slices.DeleteFunc(list, func(b event.Bucket) bool { return !b.Full.After(now) })
	if len(list) <= event.MaxBuckets {
		return list
	}
	slices.SortFunc(list, func(a, b event.Bucket) int { return b.Full.Compare(a.Full) })
	list = list[:event.MaxBuckets]
	slices.SortFunc(list, func(a, b event.Bucket) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// heldBy returns what the draws wait for longest; nil if they can be made.
func heldBy(issuer string, pages map[string]*sheet) (held *HeldError) {
	now := time.Now()
	for _, p := range pages {
		for _, d := range p.draws {
			from := d.rate.From(p.full(d.key), now, d.reserve)
			if !from.After(now) || held != nil && !from.After(held.Until) {
				continue
			}
			pace := d.key == bucketPace
			held = &HeldError{Issuer: issuer, Until: from, Reason: d.reason(), Account: pace || d.key == LimitOrders, pace: pace}
		}
	}
	return held
}

// count makes draws of one shard, whether that is allowed or not.
func (l ledger) count(ctx context.Context, issuer string, list ...draw) error {
	for {
		p := &sheet{draws: list}
		if err := p.load(ctx, l, issuer, list[0].shard); err != nil {
			return err
		}
		p.draw(time.Now())
		if err := l.save(ctx, p.budget, p.at); !conflict(err) {
			return err
		}
	}
}
