// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// ImportedLog is what was imported.
type ImportedLog struct {
	*archive.Summary
	// Written are the entries that were appended, and Present those that an import
	// which was cut short had left.
	Written, Present int
}

// NotEmptyError says that a log holds what an archive does not.
type NotEmptyError struct {
	Key string // one of them
	N   int    // how many there are
}

func (e *NotEmptyError) Error() string {
	return fmt.Sprintf("the log is not empty: %d of its entries, %s among them, are not what the archive has: import into an empty one, before any `keyturn serve` was started on it, or use `keyturn bus restore`", e.N, e.Key)
}

// ImportLog appends the entries of an archive, which [Manager.ExportLog] made, as
// they are, to a log that is empty. What an earlier import of the same archive has
// appended stays, so that one that was cut short is gone on with. Nobody else may
// write to the log meanwhile. The archive is verified as a whole first. The error
// may be a *NotEmptyError.
func (m *Manager) ImportLog(ctx context.Context, r io.ReadSeeker) (*ImportedLog, error) {
	summary, err := m.verifyArchive(r)
	if err != nil {
		return nil, err
	}
	there, err := m.sums(ctx)
	if err != nil {
		return nil, fmt.Errorf("importing a log: %w", err)
	}
	done := &ImportedLog{Summary: summary}
	present := make(map[string]bool)
	if err := eachEntry(r, func(e bus.Entry) error {
		if sum, ok := there[e.Key]; ok && sum == sha256.Sum256(e.Data) {
			present[e.Key] = true
			delete(there, e.Key)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for key := range there {
		return nil, &NotEmptyError{key, len(there)}
	}
	done.Present = len(present)
	done.Written, err = m.appendAll(ctx, r, present)
	return done, err
}

// verifyArchive verifies a whole archive, and that it is this tenant's.
func (m *Manager) verifyArchive(r io.ReadSeeker) (*archive.Summary, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	summary, err := archive.Verify(r, m.trust.Load().keys)
	if err != nil {
		return nil, err
	}
	if summary.Tenant != m.tenant {
		return nil, fmt.Errorf("the archive is tenant %q's, and this manager is tenant %q's", summary.Tenant, m.tenant)
	}
	return summary, nil
}

// sums returns the SHA-256 of every entry on the log that an archive can have.
func (m *Manager) sums(ctx context.Context) (map[string][sha256.Size]byte, error) {
	sums := make(map[string][sha256.Size]byte)
	for _, scope := range archivedScopes {
		if err := m.readLog(ctx, scope, func(u bus.Update) {
			if !u.CaughtUp {
				sums[u.Key] = sha256.Sum256(u.Data)
			}
		}); err != nil {
			return nil, fmt.Errorf("reading what stands under %s: %w", scope, err)
		}
	}
	return sums, nil
}

// eachEntry hands over every entry of an archive, from its start. The data are
// good during the call.
func eachEntry(r io.ReadSeeker, take func(bus.Entry) error) error {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	in, err := archive.NewReader(r)
	if err != nil {
		return err
	}
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = take(e)
		}
		if err != nil {
			return err
		}
	}
}

// appendAll appends the entries of an archive, a few at once, and the list of
// managers, by which all others are believed, before any. It returns how many it
// has appended.
func (m *Manager) appendAll(ctx context.Context, r io.ReadSeeker, present map[string]bool) (int, error) {
	var written atomic.Int64
	appendOne := func(ctx context.Context, e bus.Entry) error {
		if err := m.appendFirst(ctx, e); err != nil {
			return err
		}
		if n := written.Add(1); n%1000 == 0 {
			m.progress("import", fmt.Sprintf("%d entries are written", n))
		}
		return nil
	}
	err := m.appendThrough(ctx, func(write func(bus.Entry) error) error {
		return eachEntry(r, func(e bus.Entry) error {
			e.Data = bytes.Clone(e.Data)
			switch {
			case present[e.Key]:
				return nil
			case e.Key == event.ManagersKey:
				return appendOne(ctx, e)
			}
			return write(e)
		})
	}, appendOne)
	return int(written.Load()), err
}

// appendThrough has entries appended, a few at once, that list hands to write, and
// ends with the first error.
func (m *Manager) appendThrough(ctx context.Context, list func(write func(bus.Entry) error) error, appendOne func(context.Context, bus.Entry) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	entries := make(chan bus.Entry)
	var work sync.WaitGroup
	for range atOnce {
		work.Go(func() {
			for e := range entries {
				if ctx.Err() != nil {
					continue
				}
				if err := appendOne(ctx, e); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := list(func(e bus.Entry) error {
		select {
		case entries <- e:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(entries)
	work.Wait()
	return cmp.Or(context.Cause(ctx), err)
}

// appendFirst appends an entry under a key that has none. What stands there
// already counts as appended, if it is the same.
func (m *Manager) appendFirst(ctx context.Context, e bus.Entry) error {
	_, err := m.log.Append(ctx, e.Key, bus.Position{}, e.Data)
	if conflict(err) {
		return &NotEmptyError{e.Key, 1}
	}
	if err != nil {
		return fmt.Errorf("importing %s: %w", e.Key, err)
	}
	return nil
}
