// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/crash"
)

// giveBackTimeout bounds giving back, which nothing waits for.
const giveBackTimeout = 10 * time.Second

// giveBack gives back what was drawn for an order that was not made: the CA was
// not reached, say, or another manager was at it. Without drawn it does nothing.
// That it cannot be given back stops nothing: it comes back with time.
func (m *Manager) giveBack(ctx context.Context, c *Managed, issuer string, n need, drawn bool) {
	if !drawn {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	set, err := m.settings(ctx)
	if err == nil {
		err = m.ledger.giveBack(ctx, set, c, issuer, n)
	}
	if err != nil {
		m.logger.Warn("what was drawn on a budget and not used is not given back", "managed_id", c.ID, "issuer", issuer, "error", err)
	}
}

func (l ledger) giveBack(ctx context.Context, set *settings, c *Managed, issuer string, n need) error {
	limits, ok := set.limits[issuer]
	if !ok || n == lost || n == free {
		return nil
	}
	byShard := make(map[string][]draw)
	for _, d := range draws(limits, c.Spec.Names, n, l.every) {
		if !d.look {
			d.back = true
			byShard[d.shard] = append(byShard[d.shard], d)
		}
	}
	for _, draws := range byShard {
		if err := l.count(ctx, issuer, draws...); err != nil {
			return err
		}
		crash.Point(crash.GivenBack)
	}
	return nil
}
