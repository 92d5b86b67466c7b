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
)

// ExistsError says that names are managed already in a group.
type ExistsError struct {
	ID    string
	Group string
	Names []string
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s: managed already in group %q as %s", short(e.Names), e.Group, e.ID)
}

// Make makes a managed certificate and its first generation, and returns when
// that is on the bus for its group. If the first generation cannot be had,
// nothing stays behind.
//
// The error may be an *InvalidError, an *ExistsError, a *names.Error, or what
// the issuer said.
func (m *Manager) Make(ctx context.Context, r Request) (*Managed, error) {
	spec, err := m.spec(ctx, r)
	if err != nil {
		return nil, err
	}
	return m.firstly(ctx, spec, r.Force, func(ctx context.Context, c *Managed) (*Managed, error) {
		return m.renewFrom(ctx, c, 1, event.ReasonNew)
	})
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
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	made, undone := m.undo(undo, id, spec)
	if made != nil {
		return made, undone
	}
	return nil, errors.Join(fmt.Errorf("making %s (%s): %w", id, short(spec.Names), err), undone)
}

// claimNames makes a new id the holder of the names. An id beside an error may
// or may not have become it.
func (m *Manager) claimNames(ctx context.Context, spec *event.Spec, force bool) (string, error) {
	for {
		n := &event.Names{Group: spec.Group, Names: spec.Names}
		old, at, err := get[*event.Names](ctx, m, event.NamesKey(spec.Group, spec.Names))
		switch {
		case err == nil:
			if n.Holders, err = m.living(ctx, old); err != nil {
				return "", err
			}
		case !isNotFound(err):
			return "", fmt.Errorf("asking who manages %s: %w", short(spec.Names), err)
		}
		if len(n.Holders) > 0 && !force {
			return "", &ExistsError{n.Holders[len(n.Holders)-1], spec.Group, spec.Names}
		}
		id := event.NewID()
		n.Holders, n.Newest = append(n.Holders, id), spec
		if _, err = m.append(ctx, at, n); !conflict(err) {
			return id, err
		}
	}
}

// living returns the holders that are not removed. A holder without a state is
// what a maker left that died before it wrote one: it is written now.
func (m *Manager) living(ctx context.Context, n *event.Names) ([]string, error) {
	var ids []string
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
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// create writes the first state of an id, unless somebody did already.
func (m *Manager) create(ctx context.Context, id string, spec *event.Spec) (*Managed, error) {
	_, err := m.append(ctx, bus.Position{}, &event.State{ID: id, Spec: *spec})
	if err != nil && !conflict(err) {
		return nil, err
	}
	return m.Get(ctx, id)
}

// undo removes what Make could not finish, and returns it if another manager
// did finish it. The state is written first if it is not there: otherwise the
// next maker of these names would write it, and so make what was given up.
func (m *Manager) undo(ctx context.Context, id string, spec *event.Spec) (*Managed, error) {
	c, err := m.create(ctx, id, spec)
	if err != nil {
		return nil, err
	}
	if c.Generation > 0 && !c.Removed {
		return c, m.copy(ctx, c)
	}
	return nil, m.Remove(ctx, id)
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
	data, err := event.Sign(m.identity.Signing, m.tenant, now, &event.Removal{Group: c.Spec.Group, ID: c.ID, Version: v})
	if err != nil {
		return err
	}
	next := *c
	next.Removed, next.Failure = true, nil
	done, err := m.turn(ctx, &next, v, data, event.Record{At: now, Reason: event.ReasonRemoved})
	if err != nil {
		return err
	}
	m.progress(c.ID, "the removal is committed")
	if err := m.copy(ctx, done); err != nil {
		return fmt.Errorf("publishing the removal of %s: %w", c.ID, err)
	}
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
			return err
		}
	}
}
