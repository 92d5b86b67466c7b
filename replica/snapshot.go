// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// compactAt is how far a file grows over its base before it is compacted: to
// twice its size, and at least this many bytes.
const compactAt = 1 << 20

// held is the newest applied event of a managed certificate.
type held struct {
	version event.Version
	removed bool
	data    []byte    // the signed event
	key     lockedKey // of a certificate; the zero value where there is no snapshot

	// Of a certificate: the group's key that its own is sealed to, and its end.
	sealed   seal.KeyID
	notAfter time.Time

	// For receipts: when it came, since when it is served, and how long after its
	// signature it came. What a snapshot held has only served.
	at, served time.Time
	lag        time.Duration
}

// describe sets what follows from the certificate.
func (h *held) describe(c *event.Certificate) {
	h.notAfter = c.NotAfter
	h.sealed, _ = seal.Recipient(c.SealedKey) // zero is no key's
}

// A snapshot is the directory of journal files. A nil snapshot keeps nothing.
type snapshot struct {
	dir     string
	r       *Replica
	lock    *durable.Lock
	newest  uint64 // the number of the newest file, 0 before the first
	journal *journal
	behind  bool // a write failed: only a new file has everything
}

// openSnapshot locks the directory and reads what it holds. There is a position
// only where a complete file was found.
func openSnapshot(r *Replica, dir string) (s *snapshot, entries map[string]*held, at bus.Position, found bool, err error) {
	if err := durable.MkdirAll(dir); err != nil {
		return nil, nil, at, false, fmt.Errorf("replica: making the snapshot directory: %w", err)
	}
	lock, err := durable.TryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, nil, at, false, fmt.Errorf("replica: the snapshot directory %s is used by another replica: give each its own", dir)
	}
	if err != nil {
		return nil, nil, at, false, fmt.Errorf("replica: locking the snapshot directory: %w", err)
	}
	s = &snapshot{dir: dir, r: r, lock: lock}
	entries = make(map[string]*held)
	files, err := journalFiles(dir)
	if err != nil {
		_ = lock.Release() // the first error is the one to report
		return nil, nil, at, false, fmt.Errorf("replica: reading the snapshot directory: %w", err)
	}
	// From the oldest to the newest: a damaged newest file loses only what no
	// older one has.
	for i, n := range files {
		s.newest = n
		c := s.read(n)
		if c == nil {
			continue
		}
		for _, rec := range c.records {
			if rec.kind == recordEntry {
				s.merge(entries, rec)
			}
			if c.complete {
				at, found = rec.position, true
			}
		}
		if i == len(files)-1 && c.clean && c.complete {
			s.resume(c)
		}
	}
	return s, entries, at, found, nil
}

// read returns nil, and says why, for a file of which nothing is good.
func (s *snapshot) read(n uint64) *contents {
	path := filepath.Join(s.dir, fileName(n))
	b, err := durable.ReadPrivate(path, maxJournal)
	var c *contents
	if err == nil {
		c, err = decodeJournal(s.r.keys, s.r.tenant, s.r.group, b)
	}
	if err != nil {
		s.r.logger.Warn("a snapshot file cannot be used; older ones and the bus stand in", "file", path, "error", err)
		return nil
	}
	if !c.clean {
		s.r.logger.Warn("a snapshot file was cut or damaged; what follows is fetched from the bus", "file", path, "good_records", len(c.records))
	}
	return c
}

// merge keeps the higher version. Records were verified before they were
// written and are authenticated by the file.
func (s *snapshot) merge(entries map[string]*held, rec record) {
	h := &held{data: rec.event, key: rec.key}
	id, err := h.decode(s.r.tenant, s.r.group)
	if err != nil {
		s.r.logger.Warn("a snapshot record cannot be read; made by a newer keyturn?", "error", err)
		return
	}
	if old := entries[id]; old == nil || old.version.Less(h.version) {
		entries[id] = h
	}
}

// decode sets what follows from the event's bytes and returns the id.
func (h *held) decode(tenant, group string) (id string, err error) {
	e, err := event.Trusted(tenant, h.data)
	if err != nil {
		return "", err
	}
	switch b := e.Body.(type) {
	case *event.Certificate:
		h.version, id = b.Version, b.ID
		h.describe(b)
		err = sameGroup(group, b.Group)
	case *event.Removal:
		h.version, h.removed, id = b.Version, true, b.ID
		err = sameGroup(group, b.Group)
	default:
		err = fmt.Errorf("an event of another type under %s", e.Key)
	}
	return id, err
}

func sameGroup(want, got string) error {
	if want != got {
		return fmt.Errorf("an event of group %q", got)
	}
	return nil
}

// resume goes on with a file that is whole.
func (s *snapshot) resume(c *contents) {
	f, err := os.OpenFile(filepath.Join(s.dir, fileName(s.newest)), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return // the next write starts a new file
	}
	s.journal = &journal{file: f, aead: c.aead, number: uint64(len(c.records)), size: c.size, base: c.base}
}

// add writes an applied event; sync makes it durable at once. After an error
// the state in memory is ahead of the file: the next write puts all of it into a
// new one.
func (s *snapshot) add(id string, h *held, key []byte, sync bool) error {
	return s.write(func(at bus.Position) error {
		if s.full() {
			return s.compact(id, h, key)
		}
		locked, err := s.journal.append(recordEntry, at, h.data, key)
		if err != nil {
			return err
		}
		h.key = locked
		if sync {
			return s.journal.sync()
		}
		return nil
	})
}

// mark writes that everything up to here was taken, and makes it and all before
// it durable.
func (s *snapshot) mark() error {
	return s.write(func(at bus.Position) error {
		if s.full() {
			return s.compact("", nil, nil)
		}
		if _, err := s.journal.append(recordMark, at, nil, nil); err != nil {
			return err
		}
		return s.journal.sync()
	})
}

func (s *snapshot) write(to func(at bus.Position) error) error {
	if s == nil {
		return nil
	}
	err := to(s.r.resume())
	s.behind = err != nil
	return err
}

// full reports whether the next write needs a new file.
func (s *snapshot) full() bool {
	return s.behind || s.journal == nil || s.journal.size > 2*s.journal.base+compactAt
}

// compact writes all that is held, and the event h of id on top if there is
// one, to a new file, and removes the oldest ones.
func (s *snapshot) compact(id string, h *held, key []byte) error {
	relocked := make(map[string]lockedKey)
	j, err := newJournal(s.dir, s.newest+1, s.r.stored[0], s.r.tenant, s.r.group, s.r.resume(), func(j *journal) error {
		for other, old := range s.r.held {
			if other == id {
				continue
			}
			plain, err := s.r.openKey(old)
			if err != nil {
				return err
			}
			if relocked[other], err = j.append(recordEntry, s.r.position, old.data, plain); err != nil {
				return err
			}
		}
		if h == nil {
			return nil
		}
		var err error
		relocked[id], err = j.append(recordEntry, s.r.position, h.data, key)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing a new snapshot file: %w", err)
	}
	for other, old := range s.r.held {
		if other != id {
			old.key = relocked[other]
		}
	}
	if h != nil {
		h.key = relocked[id]
	}
	if s.journal != nil {
		_ = s.journal.close() // everything in it stands in the new file
	}
	s.journal, s.newest = j, s.newest+1
	if err := s.prune(); err != nil {
		s.r.logger.Warn("old snapshot files stay where they are", "error", err)
	}
	return nil
}

// rekey sees to it that each file is one that one of keys opens: what stands in
// others is written to a new one, and they are removed.
func (s *snapshot) rekey(keys []*seal.PrivateKey) error {
	if s == nil {
		return nil
	}
	files, err := journalFiles(s.dir)
	if err != nil {
		return fmt.Errorf("reading the snapshot directory: %w", err)
	}
	stale := slices.DeleteFunc(files, func(n uint64) bool {
		id, err := journalKey(filepath.Join(s.dir, fileName(n)))
		return err == nil && hasKey(keys, id)
	})
	if len(stale) == 0 {
		return nil
	}
	if err := s.write(func(bus.Position) error { return s.compact("", nil, nil) }); err != nil {
		return err
	}
	for _, n := range stale {
		if err := os.Remove(filepath.Join(s.dir, fileName(n))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a snapshot file that only a former key opens: %w", err)
		}
	}
	return durable.SyncDir(s.dir)
}

func (s *snapshot) prune() error {
	files, err := journalFiles(s.dir)
	if err != nil {
		return err
	}
	for _, n := range files[:max(0, len(files)-keepFiles)] {
		if err := os.Remove(filepath.Join(s.dir, fileName(n))); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) close() error {
	if s == nil {
		return nil
	}
	var err error
	if s.journal != nil {
		err = s.journal.close()
	}
	return errors.Join(err, s.lock.Release())
}
