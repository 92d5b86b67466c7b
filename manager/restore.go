// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// A Restoration is what a log lacks that archives have.
type Restoration struct {
	m     *Manager
	index *index
	// standing is what the log has under the keys of the archives, where that is not
	// to stay.
	standing map[string]bus.Position
	missing  map[string]bool // keys of which the log has nothing that is to stay

	// Files are the archives that are good, or of which a part is.
	Files []string
	// Bad are those of which nothing can be used, and why.
	Bad map[string]error
	// Lost are the entries that the log has not, and Older those that it has in an
	// older form. Certificates are the managed certificates among them.
	Lost, Older, Certificates int
	// Epoch is the log's, 0 if it has none, and NextEpoch what RestoreLog raises it
	// to, so that whatever is made from then on is above what was lost.
	Epoch, NextEpoch uint64
}

// Needed reports whether anything is to be restored.
func (r *Restoration) Needed() bool { return r.Lost+r.Older > 0 }

// PlanRestoration finds out what a log lacks that archives have: exports, and
// snapshots that a manager keeps. They may be damaged, cut, and older than the log:
// of each key the newest entry counts, wherever it is. It writes nothing. The error
// may say that none of the archives can be used.
func (m *Manager) PlanRestoration(ctx context.Context, archives []string) (*Restoration, error) {
	r := &Restoration{m: m, index: newIndex(m), Bad: make(map[string]error), standing: make(map[string]bus.Position), missing: make(map[string]bool)}
	var failed []error
	for _, path := range archives {
		err := r.index.add(ctx, path)
		var gone *busError
		if errors.As(err, &gone) {
			return nil, err
		}
		if err != nil {
			r.Bad[path] = err
			failed = append(failed, fmt.Errorf("%s: %w", path, err))
			continue
		}
		r.Files = append(r.Files, path)
	}
	if len(r.Files) == 0 {
		return nil, fmt.Errorf("there is nothing to restore from: %w", errors.Join(failed...))
	}
	for key := range r.index.known {
		r.missing[key] = true
	}
	for _, scope := range archivedScopes {
		if err := r.compare(ctx, scope); err != nil {
			return nil, err
		}
	}
	r.count()
	return r, nil
}

// compare holds what stands under a scope of the log against the archives.
func (r *Restoration) compare(ctx context.Context, scope string) error {
	var failed error
	err := r.m.readLog(ctx, scope, func(u bus.Update) {
		if u.CaughtUp || failed != nil {
			return
		}
		failed = r.compareEntry(ctx, u.Entry)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("reading what stands under %s: %w", scope, err)
	}
	return nil
}

func (r *Restoration) compareEntry(ctx context.Context, entry bus.Entry) error {
	e, err := r.m.openOnce(ctx, entry.Key, entry.Data)
	var gone *busError
	if errors.As(err, &gone) {
		return err
	}
	if err == nil {
		if info, ok := e.Body.(*event.LogInfo); ok {
			r.Epoch = info.Epoch
		}
		r.NextEpoch = max(r.NextEpoch, epochIn(e.Body))
	}
	k, ok := r.index.known[entry.Key]
	switch {
	case !ok:
	case k.sum == sumOf(entry.Data), err == nil && !k.newer(rankOf(e, entry.Position)):
		delete(r.missing, entry.Key)
		delete(r.standing, entry.Key)
	default:
		r.missing[entry.Key] = true
		r.standing[entry.Key] = entry.Position
	}
	return nil
}

// epochIn is the epoch of a certificate.
func epochIn(b event.Body) uint64 {
	if s, ok := b.(*event.State); ok {
		return s.Epoch
	}
	return versionOf(b).Epoch
}

func (r *Restoration) count() {
	// The epoch is not put back but raised, and the list of managers is looked after
	// by whoever knows a newer one.
	delete(r.missing, event.LogInfoKey)
	for key := range r.missing {
		if _, there := r.standing[key]; there {
			r.Older++
		} else {
			r.Lost++
		}
		if bus.InScope(key, event.StateScope) {
			r.Certificates++
		}
	}
	for key, k := range r.index.known {
		if key == event.LogInfoKey || bus.InScope(key, event.StateScope) || bus.InScope(key, groupsScope) {
			r.NextEpoch = max(r.NextEpoch, k.version.Epoch)
		}
	}
	if r.NextEpoch++; r.Epoch >= r.NextEpoch {
		r.NextEpoch = r.Epoch
	}
}

// RestoreLog puts back what a log lacks, as a plan says that was just made, after it
// has raised the epoch. Managers and replicas may work meanwhile: what they made
// since is newer, and stays. If it is cut short, the next plan has what is left.
func (m *Manager) RestoreLog(ctx context.Context, r *Restoration) error {
	if !r.Needed() {
		return nil
	}
	if r.missing[event.ManagersKey] {
		if _, err := m.putBack(ctx, m.trust.Load()); err != nil {
			return fmt.Errorf("putting the list of managers back: %w", err)
		}
	}
	if err := m.setEpoch(ctx, r.NextEpoch); err != nil {
		return fmt.Errorf("raising the epoch of the log: %w", err)
	}
	written := 0
	return m.appendThrough(ctx, func(write func(bus.Entry) error) error {
		return r.index.each(func(e bus.Entry, k located) error {
			if !r.missing[e.Key] || e.Key == event.ManagersKey {
				return nil
			}
			if written++; written%1000 == 0 {
				m.progress("restore", fmt.Sprintf("%d of %d entries", written, r.Lost+r.Older))
			}
			return write(bus.Entry{Key: e.Key, Data: bytes.Clone(e.Data)})
		})
	}, func(ctx context.Context, e bus.Entry) error { return r.put(ctx, e) })
}

// setEpoch makes the log's epoch at least that high.
func (m *Manager) setEpoch(ctx context.Context, epoch uint64) error {
	for {
		info, at, err := get[*event.LogInfo](ctx, m, event.LogInfoKey)
		if err != nil && !isNotFound(err) {
			return err
		}
		if err == nil && info.Epoch >= epoch {
			return nil
		}
		if _, err = m.append(ctx, at, &event.LogInfo{Epoch: epoch}); !conflict(err) {
			return err
		}
	}
}

// put puts an entry back, unless something newer stands there by now.
func (r *Restoration) put(ctx context.Context, e bus.Entry) error {
	after, first := r.standing[e.Key], true
	for {
		_, err := r.m.log.Append(ctx, e.Key, after, e.Data)
		if !conflict(err) {
			if err != nil {
				return fmt.Errorf("putting %s back: %w", e.Key, err)
			}
			return nil
		}
		now, err := r.m.newest(ctx, e.Key)
		if err != nil {
			return fmt.Errorf("putting %s back: %w", e.Key, err)
		}
		there, err := r.m.openOnce(ctx, e.Key, now.Data)
		if now.Data != nil && err == nil && !r.index.known[e.Key].newer(rankOf(there, now.Position)) {
			return nil
		}
		if now.Position == after && !first {
			return fmt.Errorf("putting %s back: the log refuses it, and tells of nothing else that stands there", e.Key)
		}
		after, first = now.Position, false
	}
}
