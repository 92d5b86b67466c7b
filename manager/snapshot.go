// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/durable"
)

const (
	// sealEvery is how far the snapshot is behind the log at most, but for what the
	// bus tells late.
	sealEvery = 10 * time.Second
	// reopenEvery is the time after which a snapshot that could not be written is
	// begun anew.
	reopenEvery = time.Minute
	// rewriteAt is how far a snapshot's file grows over its first length before it is
	// written anew: to twice its size, and at least this many bytes.
	rewriteAt = 16 << 20
	// sealEntries is how many entries of a file are good, or not, together.
	sealEntries = 1000
	// keepSnapshots is how many files are kept, the newest included.
	keepSnapshots = 3
)

// A snapshotter keeps in a directory the newest entry of every key that the log
// ever had, as an archive that grows: what the log is rebuilt from. A log that
// loses entries, or goes back, takes nothing out of it.
type snapshotter struct {
	m   *Manager
	dir string

	mu      sync.Mutex
	index   *index            // guarded by mu
	file    *durable.File     // guarded by mu; nil: what comes is not written
	w       *archive.Writer   // guarded by mu
	number  uint64            // guarded by mu; of the newest file
	base    int64             // guarded by mu; its first length
	dirty   bool              // guarded by mu; there is something to seal
	whole   bool              // guarded by mu; it had everything once
	failed  string            // guarded by mu; why it could not be written, as it was logged
	pass    map[string]uint32 // guarded by mu; by scope, counts readings from its start
	caught  map[string]bool   // guarded by mu; scopes that were read to their end
	missing map[string]bool   // guarded by mu; keys of which the log has no entry, or an older one
}

// keepSnapshot keeps the snapshot until ctx ends.
func (m *Manager) keepSnapshot(ctx context.Context) {
	s := &snapshotter{m: m, dir: m.snapshot}
	m.snapshots.Store(s)
	defer m.snapshots.Store(nil)
	s.reopen(ctx)
	var follows sync.WaitGroup
	for _, scope := range archivedScopes {
		from := source{from: m.log, scope: scope, take: func(u bus.Update) { s.take(ctx, scope, u) }, lost: func() { s.lost(scope) }}
		follows.Go(func() { m.follow(ctx, from) })
	}
	s.run(ctx)
	follows.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealLocked()
	s.closeLocked()
}

// run seals what came, and begins anew after failures, until ctx ends.
func (s *snapshotter) run(ctx context.Context) {
	seal, reopen := time.NewTicker(sealEvery), time.NewTicker(reopenEvery)
	defer seal.Stop()
	defer reopen.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-seal.C:
			s.mu.Lock()
			s.sealLocked()
			s.mu.Unlock()
		case <-reopen.C:
			s.mu.Lock()
			broken := s.file == nil
			s.mu.Unlock()
			if broken {
				s.reopen(ctx)
				s.readAgain(ctx)
			}
		}
	}
}

// readAgain takes what was missed.
func (s *snapshotter) readAgain(ctx context.Context) {
	for _, scope := range archivedScopes {
		s.lost(scope)
		if err := s.m.readLog(ctx, scope, func(u bus.Update) { s.take(ctx, scope, u) }); err != nil {
			s.fail(fmt.Errorf("reading what stands under %s: %w", scope, err))
			return
		}
	}
}

// sealLocked makes durable what came.
func (s *snapshotter) sealLocked() {
	if s.file == nil || !s.whole {
		return
	}
	if s.dirty {
		err := s.w.Seal()
		if err == nil {
			err = s.file.Sync()
		}
		if err != nil {
			s.failLocked(err)
			return
		}
	}
	s.dirty, s.failed = false, ""
	s.m.count(func(st *Stats) { st.Snapshot, st.SnapshotFailed = time.Now(), false })
}

// take takes an update of a scope.
func (s *snapshotter) take(ctx context.Context, scope string, u bus.Update) {
	if u.CaughtUp {
		s.caughtUp(scope)
		return
	}
	e, err := s.m.openFollowed(ctx, u.Entry)
	if err != nil {
		return // whoever it concerns says so
	}
	now := located{sum: sumOf(u.Data), rank: rankOf(e, u.Position)}
	s.mu.Lock()
	defer s.mu.Unlock()
	now.pass = s.pass[scope]
	old, ok := s.index.known[u.Key]
	switch {
	case ok && old.sum == now.sum:
		old.pass, old.position = now.pass, u.Position
		s.index.known[u.Key] = old
		delete(s.missing, u.Key)
	case ok && !s.supersedesLocked(scope, now.rank, old.rank):
		s.missing[u.Key] = true
	default:
		delete(s.missing, u.Key)
		s.writeLocked(ctx, u.Entry, now)
	}
}

// supersedesLocked reports whether what the bus tells is newer than what is known.
// What is appended while the log is followed is, unless it says itself that it is
// not.
func (s *snapshotter) supersedesLocked(scope string, now, old rank) bool {
	if n := now.compare(old); n != 0 || s.caught[scope] {
		return n >= 0
	}
	return now.newer(old)
}

func (s *snapshotter) writeLocked(ctx context.Context, e bus.Entry, k located) {
	if s.file == nil {
		return // it is read again when there is a file
	}
	if s.whole && s.w.Size() > 2*s.base+rewriteAt {
		if err := s.growLocked(ctx); err != nil {
			s.failLocked(fmt.Errorf("writing a new file: %w", err))
			return
		}
	}
	k.file, k.offset = 0, s.w.Size()
	if err := s.w.Add(e); err != nil {
		s.failLocked(err)
		return
	}
	s.index.put(e, k)
	s.dirty = true
}

// lost is called before a scope is read from its start.
func (s *snapshotter) lost(scope string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caught[scope] {
		s.caught[scope] = false
		s.pass[scope]++
	}
}

// caughtUp notes that all of a scope was read, and finds out what the log has lost.
func (s *snapshotter) caughtUp(scope string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caught[scope] {
		return
	}
	s.caught[scope] = true
	n, first := 0, ""
	for key, k := range s.index.known {
		if !bus.InScope(key, scope) {
			continue
		}
		if k.pass < s.pass[scope] {
			s.missing[key] = true
		}
		if s.missing[key] {
			n++
			if first == "" || key < first {
				first = key
			}
		}
	}
	if n > 0 {
		s.m.logger.Error("the log has lost entries that the snapshot of this manager has: `keyturn bus restore` puts them back",
			"scope", scope, "entries", n, "first", first, "snapshot", s.dir)
	}
	for _, scope := range archivedScopes {
		if !s.caught[scope] {
			return
		}
	}
	s.m.logger.Info("all that stands on the bus was read for the snapshot", "dir", s.dir, "entries", len(s.index.known), "missing_on_the_bus", len(s.missing))
	if !s.whole && s.file != nil {
		s.whole, s.base, s.dirty = true, s.w.Size(), true
	}
	s.sealLocked()
}

// lacking is how many entries the log has lost, as far as that is known.
func (s *snapshotter) lacking() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.missing)
}
