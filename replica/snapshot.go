// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// compactAt is how far a file grows before it is compacted: to twice what is held of
// it, and this many bytes more.
const compactAt = 1 << 20

// held is the newest applied event of a managed certificate.
type held struct {
	version event.Version
	removed bool
	proven  bool                 // see proof.go
	text    atomic.Pointer[text] // of the signed event; stored with the replica's mu held
	sum     uint64               // of its bytes
	lost    bool                 // they could not be read back

	// Of a certificate: the group's key that its own is sealed to, and its end.
	sealed   seal.KeyID
	notAfter time.Time

	// For receipts: when it came, since when it is served, and how long after its
	// signature it came. What a snapshot held has only served.
	at, served time.Time
	lag        time.Duration
}

// newHeld returns what is held of an event that just came, in memory.
func newHeld(v event.Version, data []byte) *held {
	h := &held{version: v, sum: maphash.Bytes(sums, data)}
	h.text.Store(&text{data: data})
	return h
}

// is reports whether the event is data, to the byte.
func (h *held) is(data []byte) bool { return h.sum == maphash.Bytes(sums, data) }

// sums is secret: nobody can choose bytes that have the sum of others.
var sums = maphash.MakeSeed()

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
func openSnapshot(r *Replica, dir string) (s *snapshot, entries map[string]*restored, at bus.Position, found bool, err error) {
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
	files, err := journalFiles(dir)
	if err != nil {
		_ = lock.Release() // the first error is the one to report
		return nil, nil, at, false, fmt.Errorf("replica: reading the snapshot directory: %w", err)
	}
	// A complete file has all that was held when it was made. A damaged newest one
	// loses only what none of those before it has, back to one that is complete.
	var read []*contents
	for i, n := range slices.Backward(files) {
		s.newest = max(s.newest, n)
		c := s.read(n)
		if c == nil {
			continue
		}
		read = append(read, c)
		if c.complete {
			at, found = c.position, true
			if i == len(files)-1 && c.clean {
				s.resume(c)
			}
			break
		}
	}
	records := 0
	for _, c := range read {
		records += int(c.records)
	}
	entries = make(map[string]*restored, records)
	for _, c := range slices.Backward(read) {
		s.merge(entries, c)
	}
	for _, one := range entries {
		s.journal.holds(one.held)
	}
	return s, entries, at, found, nil
}

// read returns nil, and says why, for a file of which nothing is good.
func (s *snapshot) read(n uint64) *contents {
	path := filepath.Join(s.dir, fileName(n))
	f, err := durable.OpenPrivate(path)
	var c *contents
	if err == nil {
		c, err = decodeJournal(s.r.keys, s.r.tenant, s.r.group, f)
	}
	if err != nil {
		s.r.logger.Warn("a snapshot file cannot be used; older ones and the bus stand in", "file", path, "error", err)
		return nil
	}
	if !c.clean {
		s.r.logger.Warn("a snapshot file was cut or damaged; what follows is fetched from the bus", "file", path, "good_records", c.records)
	}
	return c
}

// merge adds what a file holds, and keeps the higher version, of equal ones that which
// was written last. Records were verified before they were written and are
// authenticated by the file.
func (s *snapshot) merge(entries map[string]*restored, c *contents) {
	var unproven []*held // of this file
	for one := range c.all() {
		switch {
		case one.kind == recordProven:
			for _, h := range unproven {
				h.proven = true
			}
			unproven = nil
		case one.err != nil:
			s.r.logger.Warn("a snapshot record cannot be read; made by a newer keyturn?", "error", one.err)
		case one.held != nil:
			if old := entries[one.id]; old == nil || !one.held.version.Less(old.held.version) {
				entries[one.id] = one
			}
			if !one.held.proven {
				unproven = append(unproven, one.held)
			}
		}
	}
}

// resume goes on with a file that is whole. Who made it may have been killed before
// its name was on the disk.
func (s *snapshot) resume(c *contents) {
	if err := durable.SyncDir(s.dir); err != nil {
		return // the next write starts a new file
	}
	f, err := durable.OpenFile(filepath.Join(s.dir, fileName(s.newest)), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return // so does it here
	}
	s.journal = &journal{file: f, segment: c.segment, number: c.records, size: c.size}
}

// add writes an applied event; sync makes it durable at once. After an error
// the state in memory is ahead of the file: the next write puts all of it into a
// new one.
func (s *snapshot) add(id string, h *held, sync bool) error {
	return s.write(func(at bus.Position) error {
		if s.full() {
			return s.compact(id, h)
		}
		data, err := h.text.Load().read()
		if err != nil {
			return err
		}
		t, err := s.journal.append(h.kind(), at, data)
		if err != nil {
			return err
		}
		h.text.Store(t)
		s.journal.holds(h)
		s.journal.drops(s.r.held[id])
		if sync {
			return s.journal.sync()
		}
		return nil
	})
}

// mark writes that everything up to here was taken, with recordProven that all is
// proven, too, and makes it and all before it durable.
func (s *snapshot) mark(kind recordKind) error {
	return s.write(func(at bus.Position) error {
		if s.full() {
			return s.compact("", nil)
		}
		if _, err := s.journal.append(kind, at, nil); err != nil {
			return err
		}
		return s.journal.sync()
	})
}

// kind is what stands in the snapshot of h.
func (h *held) kind() recordKind {
	if h.proven {
		return recordEntry
	}
	return recordSealed
}

// forget sees to it that the next write starts a new file, as the newest one has
// something that is not held any more.
func (s *snapshot) forget() {
	if s != nil {
		s.behind = true
	}
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
	return s.behind || s.journal == nil || s.journal.size > 2*s.journal.live+compactAt
}

// compact writes all that is held, and the event h of id on top if there is
// one, to a new file, and removes the oldest ones. What cannot be read any more is left
// out, and asked for again.
func (s *snapshot) compact(id string, h *held) error {
	moved := make(map[*held]*text, len(s.r.held)+1)
	j, err := newJournal(s.dir, s.newest+1, s.r.stored[0], s.r.tenant, s.r.group, s.r.resume(), func(j *journal) error {
		for other, old := range s.r.held {
			if other == id {
				continue
			}
			data := s.r.event(other, old)
			if data == nil {
				continue
			}
			var err error
			if moved[old], err = j.append(old.kind(), s.r.position, data); err != nil {
				return err
			}
		}
		if h == nil {
			return nil
		}
		data, err := h.text.Load().read()
		if err != nil {
			return err
		}
		moved[h], err = j.append(h.kind(), s.r.position, data)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing a new snapshot file: %w", err)
	}
	for one, t := range moved {
		one.text.Store(t)
	}
	if s.journal != nil {
		_ = s.journal.close() // everything in it stands in the new file
	}
	s.journal, s.newest = j, s.newest+1
	crash.Point(crash.Compacted)
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
	if err := s.write(func(bus.Position) error { return s.compact("", nil) }); err != nil {
		return err
	}
	for _, n := range stale {
		if err := durable.Remove(filepath.Join(s.dir, fileName(n))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a snapshot file that only a former key opens: %w", err)
		}
	}
	crash.Point(crash.Rekeyed)
	return durable.SyncDir(s.dir)
}

func (s *snapshot) prune() error {
	files, err := journalFiles(s.dir)
	if err != nil {
		return err
	}
	for _, n := range files[:max(0, len(files)-keepFiles)] {
		if err := durable.Remove(filepath.Join(s.dir, fileName(n))); err != nil {
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
