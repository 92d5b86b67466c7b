// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
)

// salvagePatience is how long a damaged log gets to give the next entry, and
// salvageImpatience how long once it has failed to.
const (
	salvagePatience   = 5 * time.Second
	salvageImpatience = time.Second
)

// SalvageLog writes what can be read of a log that may be damaged as an archive, for
// PlanRestoration: what is newer there than in any other is not lost. It returns how
// many entries there were, and why that is not all, if it is not.
func (m *Manager) SalvageLog(ctx context.Context, w io.Writer) (entries uint64, lost error, err error) {
	out, err := archive.NewWriter(w, m.identity.Signing, archive.Head{Tenant: m.tenant, Time: time.Now().UTC(), Manager: m.name})
	if err != nil {
		return 0, nil, fmt.Errorf("writing the archive: %w", err)
	}
	patience := salvagePatience
	for _, scope := range archivedScopes {
		why, err := m.salvage(ctx, scope, patience, out)
		if err != nil {
			return out.Entries(), lost, fmt.Errorf("writing the archive: %w", err)
		}
		if why != nil && lost == nil {
			lost, patience = fmt.Errorf("reading what stands under %s: %w", scope, why), salvageImpatience
		}
		if ctx.Err() != nil {
			return out.Entries(), lost, ctx.Err()
		}
	}
	if err := out.Seal(); err != nil {
		return out.Entries(), lost, fmt.Errorf("writing the archive: %w", err)
	}
	return out.Entries(), lost, nil
}

// salvage adds what a scope gives, and returns why that is not all.
func (m *Manager) salvage(ctx context.Context, scope string, patience time.Duration, out *archive.Writer) (lost, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %v", patience)) })
	defer idle.Stop()
	for u, err := range m.log.Follow(ctx, scope, bus.Position{}) {
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err, nil
		}
		if u.CaughtUp {
			return nil, nil
		}
		idle.Reset(patience)
		if _, err := m.openOnce(ctx, u.Key, u.Data); err != nil {
			continue // nobody has believed it
		}
		if err := out.Add(u.Entry); err != nil {
			return nil, err
		}
	}
	return fmt.Errorf("the bus ended the stream"), nil
}
