// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// An index knows where the newest entry of every key stands in some archives,
// which may have been cut or damaged: of each it has what is good.
type index struct {
	m *Manager
	// open decodes an entry, and says whether it is believed.
	open     func(ctx context.Context, key string, data []byte) (*event.Event, error)
	files    []sound
	known    map[string]located
	managers bus.Entry // the newest list of them
}

// A sound archive is a file up to where it is good.
type sound struct {
	path  string
	size  int64
	whole bool // that is its end
	last  archive.Sealed
}

// A located entry is one in a file.
type located struct {
	file   int // in index.files
	offset int64
	sum    [16]byte // the start of the SHA-256 of its data
	rank
	pass uint32 // see snapshotter
}

func newIndex(m *Manager) *index {
	return &index{m: m, open: m.openOnce, known: make(map[string]located)}
}

func sumOf(data []byte) [16]byte {
	sum := sha256.Sum256(data)
	return [16]byte(sum[:])
}

// add takes what is good of an archive, and what is believed of that. Within a
// file the later entry counts, unless it says itself that it is the older one;
// between files, the newer one. The error says that nothing of the file is good.
func (x *index) add(ctx context.Context, path string) error {
	file, err := x.m.sound(ctx, path)
	if err != nil {
		return err
	}
	number := len(x.files)
	x.files = append(x.files, file)
	return file.each(func(entry bus.Entry, offset int64) error {
		e, err := x.open(ctx, entry.Key, entry.Data)
		var gone *busError
		if errors.As(err, &gone) {
			return err
		}
		if err != nil {
			return nil // a former manager's, whom nobody believes any more
		}
		now := located{file: number, offset: offset, sum: sumOf(entry.Data), rank: rankOf(e, entry.Position)}
		old, ok := x.known[entry.Key]
		if ok && (old.file == number && now.compare(old.rank) < 0 || old.file != number && !now.newer(old.rank)) {
			return nil
		}
		x.put(entry, now)
		return nil
	})
}

func (x *index) put(entry bus.Entry, k located) {
	x.known[entry.Key] = k
	if entry.Key == event.ManagersKey {
		entry.Data = slices.Clone(entry.Data)
		x.managers = entry
	}
}

// each hands over the entries that the index has, the list of managers first, and
// then file by file. The data are good during the call.
func (x *index) each(take func(bus.Entry, located) error) error {
	if k, ok := x.known[event.ManagersKey]; ok {
		if err := take(x.managers, k); err != nil {
			return err
		}
	}
	for number, file := range x.files {
		if err := file.each(func(entry bus.Entry, offset int64) error {
			k, ok := x.known[entry.Key]
			if !ok || k.file != number || k.offset != offset || entry.Key == event.ManagersKey {
				return nil
			}
			return take(entry, k)
		}); err != nil {
			return fmt.Errorf("reading %s again: %w", file.path, err)
		}
	}
	return nil
}

// sound reads an archive to where it is good, and learns who the managers are if
// it has a newer list of them.
func (m *Manager) sound(ctx context.Context, path string) (s sound, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	in, err := archive.NewReader(f)
	if err != nil {
		return s, err
	}
	if in.Head().Tenant != m.tenant {
		return s, fmt.Errorf("it is tenant %q's, and this manager is tenant %q's", in.Head().Tenant, m.tenant)
	}
	for err == nil {
		var entry bus.Entry
		if entry, err = in.Next(); err == nil && entry.Key == event.ManagersKey {
			m.learnNewer(slices.Clone(entry.Data))
		}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, archive.ErrCut) && !errors.Is(err, archive.ErrDamaged) {
		return s, err
	}
	s = sound{path, in.Sealed().Offset, errors.Is(err, io.EOF), in.Sealed()}
	t, err := m.trusted(ctx)
	if err != nil {
		return s, err
	}
	_, err = s.last.Check(t.everybody(m.identity.Signing.Public()))
	return s, err
}

// everybody are the managers, those that were, and one more: who may have sealed
// what is then believed entry by entry.
func (t *trust) everybody(more *seal.VerifyKey) []*seal.VerifyKey {
	all := append(slices.Clone(t.keys), more)
	for _, k := range t.former {
		if key, err := seal.NewVerifyKey(k.Key); err == nil {
			all = append(all, key)
		}
	}
	return all
}

// each hands over the entries, and where they begin. The data are good during the
// call.
func (s *sound) each(take func(entry bus.Entry, offset int64) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	in, err := archive.NewReader(io.LimitReader(f, s.size))
	if err != nil {
		return err
	}
	for {
		entry, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = take(entry, in.At())
		}
		if err != nil {
			return err
		}
	}
}
