// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
)

// snapshotName is the name of a file; the numbers count up.
const snapshotName = "log-%016x.kta"

// SnapshotFiles returns the files of a snapshot directory, the oldest first.
func SnapshotFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if numberOf(e.Name()) > 0 {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// numberOf is 0 for what is not a snapshot.
func numberOf(path string) (n uint64) {
	if _, err := fmt.Sscanf(filepath.Base(path), snapshotName, &n); err != nil || filepath.Base(path) != fmt.Sprintf(snapshotName, n) {
		return 0
	}
	return n
}

// reopen finds out what the files hold, and goes on with the newest, if it is
// whole, or writes a new one.
func (s *snapshotter) reopen(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index, s.caught, s.missing, s.pass = s.newIndex(), make(map[string]bool), make(map[string]bool), make(map[string]uint32)
	for _, scope := range archivedScopes {
		s.pass[scope] = 1
	}
	if err := s.openLocked(ctx); err != nil {
		s.failLocked(err)
	}
}

// newIndex is one of files that this manager has sealed, after it had verified what
// it wrote there.
func (s *snapshotter) newIndex() *index {
	x := newIndex(s.m)
	x.open = func(_ context.Context, key string, data []byte) (*event.Event, error) {
		e, err := event.Trusted(s.m.tenant, data)
		if err == nil && e.Key != key {
			err = event.ErrMoved
		}
		return e, err
	}
	return x
}

func (s *snapshotter) openLocked(ctx context.Context) error {
	if err := durable.MkdirAll(s.dir); err != nil {
		return err
	}
	files, err := SnapshotFiles(s.dir)
	if err != nil {
		return err
	}
	// The newest has all that the older ones have, unless it is damaged.
	for i := len(files) - 1; i >= 0; i-- {
		s.number = max(s.number, numberOf(files[i]))
		err := s.index.add(ctx, files[i])
		var gone *busError
		if errors.As(err, &gone) {
			return err
		}
		if err != nil {
			s.m.logger.Error("a snapshot of the log cannot be used; older ones and the log stand in", "file", files[i], "error", err)
			continue
		}
		s.whole = true
		last := s.index.files[len(s.index.files)-1]
		if last.whole && len(s.index.files) == 1 && i == len(files)-1 {
			return s.resumeLocked(last)
		}
		if last.whole {
			break
		}
		s.m.logger.Error("a snapshot of the log was cut or damaged; older ones and the log stand in for the rest", "file", files[i], "good_bytes", last.size)
	}
	return s.rewriteLocked(ctx)
}

// resumeLocked goes on with a file. Who made it may have been killed before its name
// was on the disk.
func (s *snapshotter) resumeLocked(last sound) (err error) {
	durable.Settle(last.path)
	if s.file, err = durable.OpenFile(last.path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return err
	}
	s.w, s.base = last.last.Resume(s.file, s.m.identity.Signing), last.size
	return nil
}

// rewriteLocked writes what is known to a new file, goes on with that, and removes
// the oldest.
func (s *snapshotter) rewriteLocked(ctx context.Context) (err error) {
	path := filepath.Join(s.dir, fmt.Sprintf(snapshotName, s.number+1))
	tmp := path + ".tmp"
	f, err := durable.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, durable.PrivateFile)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to report
			_ = durable.Remove(tmp)
		}
	}()
	head := archive.Head{
		Tenant: s.m.tenant, Log: s.index.known[event.LogInfoKey].position.Log, Epoch: s.index.known[event.LogInfoKey].version.Epoch,
		Time: time.Now().UTC(), Manager: s.m.name,
	}
	w, err := archive.NewWriter(f, s.m.identity.Signing, head)
	if err != nil {
		return err
	}
	next := s.newIndex()
	next.files = []sound{{path: path}}
	err = s.index.each(func(e bus.Entry, k located) error {
		_, err := s.m.openOnce(ctx, e.Key, e.Data)
		var gone *busError
		if errors.As(err, &gone) {
			return err
		}
		if err != nil {
			return nil // its manager was revoked since, and nobody signed it anew
		}
		if s.whole && w.Entries()%sealEntries == 0 {
			if err := w.Seal(); err != nil {
				return err
			}
		}
		k.file, k.offset = 0, w.Size()
		next.put(e, k)
		return w.Add(e)
	})
	if err == nil && s.whole {
		err = w.Seal()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = durable.Rename(tmp, path)
	}
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil {
		return err
	}
	s.closeLocked()
	s.file, s.w, s.base, s.index = f, w, w.Size(), next
	s.number++
	return s.prune()
}

func (s *snapshotter) prune() error {
	files, err := SnapshotFiles(s.dir)
	if err != nil {
		return err
	}
	for _, path := range files[:max(0, len(files)-keepSnapshots)] {
		if err := durable.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// closeLocked ends the writing.
func (s *snapshotter) closeLocked() {
	if s.file != nil {
		_ = s.file.Close() // what counts was synced
	}
	s.file, s.w = nil, nil
}

// fail has the snapshot begun anew after a while.
func (s *snapshotter) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *snapshotter) failLocked(err error) {
	s.closeLocked()
	s.m.count(func(st *Stats) { st.SnapshotFailed = true })
	if s.failed != err.Error() {
		s.failed = err.Error()
		s.m.logger.Error("the snapshot of the log is not kept; trying on", "dir", s.dir, "error", err)
	}
}

// growLocked goes on with a new file after one that has grown.
func (s *snapshotter) growLocked(ctx context.Context) error {
	if err := s.w.Seal(); err != nil {
		return err
	}
	s.index.files[0].size = s.w.Size()
	return s.rewriteLocked(ctx)
}
