// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/event"
)

// A reclaim is one call of Reclaim.
type reclaim struct {
	view *view
	wake chan struct{}

	mu     sync.Mutex
	proofs [][]byte // guarded by mu; not looked at yet
}

// Reclaim adopts what replicas report, and prove, that the log knows nothing of,
// until they report nothing of that kind any more, or ctx ends: a replica finds out
// within some minutes that the log has lost something, and proves some of it at a
// time. Told is told what became of what. It returns the ids that nobody has
// proven.
func (m *Manager) Reclaim(ctx context.Context, by string, told func(id string, a Adoption, err error)) (left []string, err error) {
	if m.board == nil {
		return nil, errors.New("this bus has no board, on which replicas would report what they hold")
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &reclaim{view: newView(m), wake: make(chan struct{}, 1)}
	r.view.changed = func() { notify(r.wake) }
	r.view.proofs = func(_, _ string, proofs [][]byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.proofs = append(r.proofs, proofs...)
	}
	var follows sync.WaitGroup
	defer follows.Wait()
	defer cancel()
	states := source{from: m.log, scope: event.StateScope, take: with(ctx, r.view.takeState)}
	for _, s := range append(r.view.sources(ctx), states) {
		follows.Go(func() { m.follow(ctx, s) })
	}
	failed := make(map[string]bool)
	for {
		if r.view.ready() {
			r.adopt(ctx, by, failed, told)
			if left = r.unknown(failed); len(left) == 0 {
				return nil, nil
			}
		}
		select {
		case <-ctx.Done():
			return r.unknown(nil), nil
		case <-r.wake:
		}
	}
}

// adopt takes the proofs that came, of what the log knows nothing of.
func (r *reclaim) adopt(ctx context.Context, by string, failed map[string]bool, told func(string, Adoption, error)) {
	r.mu.Lock()
	proofs := r.proofs
	r.proofs = nil
	r.mu.Unlock()
	m := r.view.m
	for _, data := range proofs {
		e, err := event.Trusted(m.tenant, data)
		if err != nil {
			continue
		}
		id := path.Base(e.Key)
		if failed[id] || !r.isUnknown(id) {
			continue
		}
		id, a, err := m.Adopt(ctx, data, by)
		failed[id] = err != nil
		if c, getErr := m.Get(ctx, id); getErr == nil {
			r.view.certificate(c)
		}
		told(id, a, err)
	}
}

func (r *reclaim) isUnknown(id string) bool {
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	return r.view.certs[id] == nil
}

// unknown are the ids that replicas hold, and the log does not know, but for those
// that are left out.
func (r *reclaim) unknown(without map[string]bool) []string {
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	ids := make(map[string]bool)
	for _, h := range r.view.hosts {
		if h.head() == nil || !h.live() {
			continue
		}
		for _, p := range h.pages {
			if p.Receipt == nil {
				continue
			}
			for i := range p.Certificates {
				c := &p.Certificates[i]
				if r.view.certs[c.ID] == nil && !c.Removed && !without[c.ID] {
					ids[c.ID] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}
