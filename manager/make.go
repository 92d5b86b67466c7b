// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// ExistsError says that names are managed already in a group.
type ExistsError struct {
	ID    string
	Group string
	Names []string
	// Unmade says that there is no generation yet.
	Unmade bool
}

func (e *ExistsError) Error() string {
	unmade := ""
	if e.Unmade {
		unmade = ", which has no certificate yet"
	}
	return fmt.Sprintf("%s: managed already in group %q as %s%s", short(e.Names), e.Group, e.ID, unmade)
}

// Make makes a managed certificate and its first generation, and returns when
// that is on the bus for its group. If the first generation cannot be had,
// nothing stays behind, unless its order can have become a certificate: then the
// error is an *UnfinishedError, and the same request goes on with it, under the
// same id. So does whoever runs.
//
// The error may be an *InvalidError, an *ExistsError, a *names.Error, or what
// the issuer said.
func (m *Manager) Make(ctx context.Context, r Request) (*Managed, error) {
	spec, err := m.spec(ctx, r)
	if err != nil {
		return nil, err
	}
	begun, err := m.unfinished(ctx, spec)
	if err != nil {
		return nil, err
	}
	if begun == nil {
		return m.firstly(ctx, spec, r.Force, m.first)
	}
	c, err := m.first(ctx, begun)
	if err != nil {
		return m.undo(ctx, begun.ID, spec, err, true)
	}
	return c, nil
}

// first makes the first generation.
func (m *Manager) first(ctx context.Context, c *Managed) (*Managed, error) {
	return m.renewFrom(ctx, c, 1, event.ReasonNew)
}

// firstly claims the names, writes the first state, and has the first generation
// made. If one of these fails, all is undone.
func (m *Manager) firstly(ctx context.Context, spec *event.Spec, force bool, generation func(context.Context, *Managed) (*Managed, error)) (*Managed, error) {
	id, err := m.claimNames(ctx, spec, force)
	if id == "" {
		return nil, err
	}
	var c *Managed
	if err == nil {
		m.progress(id, fmt.Sprintf("%s: the names are claimed", short(spec.Names)))
		c, err = m.create(ctx, id, spec)
	}
	if err == nil {
		c, err = generation(ctx, c)
	}
	if err == nil {
		return c, nil
	}
	return m.undo(ctx, id, spec, err, false)
}

// claimNames makes a new id the holder of the names. An id beside an error may
// or may not have become it.
func (m *Manager) claimNames(ctx context.Context, spec *event.Spec, force bool) (string, error) {
	for {
		holders, at, err := m.holders(ctx, spec)
		if err != nil {
			return "", err
		}
		if len(holders) > 0 && !force {
			last := holders[len(holders)-1]
			return "", &ExistsError{last.ID, spec.Group, spec.Names, last.Generation == 0}
		}
		id := event.NewID()
		n := &event.Names{Group: spec.Group, Names: spec.Names, Newest: spec}
		for _, c := range holders {
			n.Holders = append(n.Holders, c.ID)
		}
		n.Holders = append(n.Holders, id)
		if _, err = m.append(ctx, at, n); !conflict(err) {
			crash.Point(crash.NamesClaimed)
			return id, err
		}
	}
}

// holders returns what manages a spec's names in its group, and where that stands.
func (m *Manager) holders(ctx context.Context, spec *event.Spec) ([]*Managed, bus.Position, error) {
	n, at, err := get[*event.Names](ctx, m, event.NamesKey(spec.Group, spec.Names))
	if isNotFound(err) {
		return nil, at, nil
	}
	if err != nil {
		return nil, at, fmt.Errorf("asking who manages %s: %w", short(spec.Names), err)
	}
	list, err := m.living(ctx, n)
	return list, at, err
}

// living returns the holders that are not removed. A holder without a state is
// what a maker left that died before it wrote one: it is written now.
func (m *Manager) living(ctx context.Context, n *event.Names) ([]*Managed, error) {
	var list []*Managed
	for i, id := range n.Holders {
		c, err := m.Get(ctx, id)
		var missing *NotFoundError
		switch {
		case errors.As(err, &missing) && i == len(n.Holders)-1 && n.Newest != nil:
			if c, err = m.create(ctx, id, n.Newest); err != nil {
				return nil, err
			}
		case errors.As(err, &missing):
			continue
		case err != nil:
			return nil, err
		}
		if !c.Removed {
			list = append(list, c)
		}
	}
	return list, nil
}

// create writes the first state of an id, unless somebody did already.
func (m *Manager) create(ctx context.Context, id string, spec *event.Spec) (*Managed, error) {
	_, err := m.append(ctx, bus.Position{}, &event.State{ID: id, Spec: *spec})
	if err != nil && !conflict(err) {
		return nil, err
	}
	crash.Point(crash.Begun)
	return m.Get(ctx, id)
}

// undo removes what could not be made because of cause, and returns it if another
// manager did make it. It stays with an order that may have become a certificate, and
// again says that each may: how far an earlier Make came with it is not known. The
// state is written first if it is not there: otherwise the next maker of these names
// would write it, and so make what was given up.
func (m *Manager) undo(ctx context.Context, id string, spec *event.Spec, cause error, again bool) (*Managed, error) {
	cause = fmt.Errorf("making %s (%s): %w", id, short(spec.Names), cause)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	c, err := m.create(ctx, id, spec)
	switch {
	case err != nil:
		return nil, errors.Join(cause, err)
	case c.Generation > 0 && !c.Removed:
		return c, m.copy(ctx, c)
	case c.Order != nil && (again || c.Order.Status != orderPending):
		return nil, &UnfinishedError{id, cause}
	}
	return nil, errors.Join(cause, m.Remove(ctx, id))
}

// Remove ends the management of a certificate: replicas drop it, and nothing
// renews it any more. It does not revoke it. Whoever renews it at the same
// time conflicts. The error may be a *NotFoundError or a *RemovedError.
func (m *Manager) Remove(ctx context.Context, id string) error {
	for {
		c, err := m.Get(ctx, id)
		if err != nil {
			return err
		}
		if c.Removed {
			return errors.Join(&RemovedError{id}, m.copy(ctx, c)) // perhaps its manager died before it could
		}
		err = m.remove(ctx, c)
		if !conflict(err) {
			return err
		}
	}
}

func (m *Manager) remove(ctx context.Context, c *Managed) error {
	epoch, err := m.epoch(ctx)
	if err != nil {
		return err
	}
	v := event.Version{Epoch: max(epoch, c.Epoch), Generation: c.Generation + 1}
	now := time.Now()
	data, err := m.sign(ctx, now, &event.Removal{Group: c.Spec.Group, ID: c.ID, Version: v})
	if err != nil {
		return err
	}
	next := *c
	next.Removed, next.Failure = true, nil
	done, err := m.turn(ctx, &next, v, data, event.Record{At: now, Reason: event.ReasonRemoved})
	if err != nil {
		return err
	}
	crash.Point(crash.Removed)
	m.progress(c.ID, "the removal is committed")
	if err := m.copy(ctx, done); err != nil {
		return fmt.Errorf("publishing the removal of %s: %w", c.ID, err)
	}
	crash.Point(crash.RemovalPublished)
	m.logger.Info("certificate is removed", "managed_id", c.ID, "names", c.Spec.Names)
	return m.releaseNames(ctx, c)
}

// releaseNames takes an id out of its names' holders. If it is not done, the
// next maker finds the id removed.
func (m *Manager) releaseNames(ctx context.Context, c *Managed) error {
	for {
		n, at, err := get[*event.Names](ctx, m, event.NamesKey(c.Spec.Group, c.Spec.Names))
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("releasing the names of %s: %w", c.ID, err)
		}
		n.Holders = slices.DeleteFunc(n.Holders, func(id string) bool { return id == c.ID })
		if len(n.Holders) == 0 {
			n.Newest = nil
		}
		if _, err = m.append(ctx, at, n); !conflict(err) {
			crash.Point(crash.NamesReleased)
			return err
		}
	}
}
