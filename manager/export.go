// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// archivedScopes are those whose entries an archive has, in this order: what is
// read later knows of all that was read before. A certificate that is renewed
// meanwhile has a newer state than copy, which any manager makes up for, and one
// that is made meanwhile at most its names, which their next maker makes up for.
//
// Requests to join are left out: no manager signed them, and who sent one sends
// it again.
var archivedScopes = []string{confScope, event.MemberScope, event.TokenScope, groupsScope, event.StateScope, event.NamesScope, event.ChallengeScope, event.BudgetScope}

// Exported is what was exported.
type Exported struct {
	archive.Head
	Entries uint64
	Size    int64
	// LeftOut are the entries that no manager signed, and so nobody believes.
	LeftOut int
}

// errManagersChanged says that an export cannot be believed as a whole.
var errManagersChanged = errors.New("managers were added or revoked meanwhile: export again")

// ExportLog writes the newest entry of every key, as it stands on the bus, as an
// archive that this manager seals. What is not believed is left out. Managers and
// replicas may go on meanwhile: what they change then may or may not be in it.
func (m *Manager) ExportLog(ctx context.Context, w io.Writer) (*Exported, error) {
	chain, err := m.newest(ctx, event.ManagersKey)
	if err != nil {
		return nil, fmt.Errorf("exporting the log: %w", err)
	}
	if m.learn(chain.Data).problem != nil {
		return nil, fmt.Errorf("exporting the log: the list of managers on the bus: %w", m.trust.Load().problem)
	}
	if _, err := m.mayWrite(ctx); err != nil {
		return nil, fmt.Errorf("exporting the log: %w", err)
	}
	epoch, err := m.epoch(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporting the log: %w", err)
	}
	head := archive.Head{Tenant: m.tenant, Log: chain.Position.Log, Epoch: epoch, Time: time.Now().UTC(), Manager: m.name}
	out, err := archive.NewWriter(w, m.identity.Signing, head)
	if err == nil && chain.Data != nil {
		err = out.Add(chain)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the archive: %w", err)
	}
	done := &Exported{Head: head}
	for _, scope := range archivedScopes {
		if err := m.exportScope(ctx, scope, out, done); err != nil {
			return nil, err
		}
		m.progress("export", fmt.Sprintf("%s: %d entries so far", scope, out.Entries()))
	}
	now, err := m.newest(ctx, event.ManagersKey)
	if err != nil {
		return nil, fmt.Errorf("exporting the log: %w", err)
	}
	if !bytes.Equal(now.Data, chain.Data) {
		return nil, errManagersChanged
	}
	if err := out.Seal(); err != nil {
		return nil, fmt.Errorf("writing the archive: %w", err)
	}
	done.Entries, done.Size = out.Entries(), out.Size()
	return done, nil
}

// exportScope adds what stands under a scope, but for the list of managers.
func (m *Manager) exportScope(ctx context.Context, scope string, out *archive.Writer, done *Exported) error {
	for u, err := range m.log.Follow(ctx, scope, bus.Position{}) {
		if err != nil {
			return fmt.Errorf("reading what stands under %s: %w", scope, err)
		}
		if u.CaughtUp {
			return nil
		}
		if u.Key == event.ManagersKey {
			continue
		}
		if _, err := m.openOnce(ctx, u.Key, u.Data); err != nil {
			var gone *busError
			if errors.As(err, &gone) {
				return err
			}
			done.LeftOut++
			continue
		}
		if err := out.Add(u.Entry); err != nil {
			return fmt.Errorf("writing the archive: %w", err)
		}
	}
	return fmt.Errorf("reading what stands under %s: the bus ended the stream", scope)
}
