// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// Managed is a managed certificate as its state on the bus tells it.
type Managed struct {
	event.State
	// Changed is when the state was last written, and Position where.
	Changed  time.Time
	Position bus.Position
	// Certificate is the newest generation; nil before the first and after the
	// removal.
	Certificate *event.Certificate
	// Issued is when the newest generation was made, by the manager's clock.
	Issued time.Time
	// Seen is when this state was read, by this machine's clock.
	Seen time.Time
}

// Leaf parses the newest generation's leaf; nil where there is none.
func (c *Managed) Leaf() (*x509.Certificate, error) {
	if c.Certificate == nil {
		return nil, nil
	}
	return x509.ParseCertificate(c.Certificate.Chain[0])
}

// NotFoundError says that no managed certificate has an id.
type NotFoundError struct{ ID string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("there is no managed certificate %q: `keyturn cert ls` lists them", e.ID)
}

// AmbiguousError says that a prefix, or a name, fits several ids.
type AmbiguousError struct {
	Prefix string
	IDs    []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q fits %d ids: %s: give more of one", e.Prefix, len(e.IDs), strings.Join(e.IDs, ", "))
}

// RemovedError says that a managed certificate was removed.
type RemovedError struct{ ID string }

func (e *RemovedError) Error() string {
	return fmt.Sprintf("the managed certificate %s was removed: nothing renews it any more", e.ID)
}

// InvalidError says that what was asked for cannot be.
type InvalidError struct{ Problem string }

func (e *InvalidError) Error() string { return e.Problem }

// Get returns the managed certificate with exactly this id, removed ones
// included. The error may be a *NotFoundError.
func (m *Manager) Get(ctx context.Context, id string) (*Managed, error) {
	if err := event.CheckID(id); err != nil {
		return nil, &NotFoundError{id}
	}
	entry, err := m.log.Get(ctx, event.StateKey(id))
	if errors.Is(err, bus.ErrNotFound) {
		return nil, &NotFoundError{id}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the state of %s: %w", id, err)
	}
	return m.decode(ctx, entry)
}

// decode verifies an entry of the state scope and notes its claim.
func (m *Manager) decode(ctx context.Context, entry bus.Entry) (*Managed, error) {
	e, err := m.open(ctx, entry.Key, entry.Data)
	if err != nil {
		return nil, disbelief("the entry "+entry.Key, err)
	}
	s, ok := e.Body.(*event.State)
	if !ok {
		return nil, fmt.Errorf("the entry %s on the bus: %w", entry.Key, event.ErrUnsupported)
	}
	c := &Managed{State: *s, Changed: e.Time, Position: entry.Position, Seen: time.Now()}
	m.sight(c)
	if len(s.Current) == 0 {
		return c, nil
	}
	current, err := m.open(ctx, event.CertificateKey(s.Spec.Group, s.ID), s.Current)
	if err != nil {
		return nil, disbelief("the event in "+entry.Key, err)
	}
	c.Issued = current.Time
	c.Certificate, _ = current.Body.(*event.Certificate)
	return c, nil
}

// List returns all managed certificates that are not removed, by id.
func (m *Manager) List(ctx context.Context) ([]*Managed, error) {
	all, err := m.all(ctx)
	return slices.DeleteFunc(all, func(c *Managed) bool { return c.Removed }), err
}

// all reads every state. One that cannot be read is an error, and the others
// are returned nevertheless.
func (m *Manager) all(ctx context.Context) ([]*Managed, error) {
	states := make(map[string]*Managed)
	var bad []error
	strangers := 0
	for u, err := range m.log.Follow(ctx, event.StateScope, bus.Position{}) {
		if err != nil {
			return nil, fmt.Errorf("listing the managed certificates: %w", err)
		}
		if u.CaughtUp {
			break
		}
		switch c, err := m.decode(ctx, u.Entry); {
		case errors.Is(err, seal.ErrUnknownSigner):
			if strangers++; strangers == 1 {
				bad = append(bad, err)
			}
		case err != nil:
			bad = append(bad, err)
		default:
			states[c.ID] = c
		}
	}
	if strangers > 1 {
		bad = append(bad, fmt.Errorf("and %d more entries that no trusted manager signed: is the identity of this bus?", strangers-1))
	}
	list := make([]*Managed, 0, len(states))
	for _, c := range states {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *Managed) int { return cmp.Compare(a.ID, b.ID) })
	return list, errors.Join(bad...)
}

// Find returns the managed certificate whose id starts with prefix. Removed
// ones are found by their whole id only. The error may be a *NotFoundError or
// an *AmbiguousError.
func (m *Manager) Find(ctx context.Context, prefix string) (*Managed, error) {
	if event.CheckID(prefix) == nil {
		return m.Get(ctx, prefix)
	}
	if prefix == "" {
		return nil, &NotFoundError{prefix}
	}
	list, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c *Managed) bool { return !strings.HasPrefix(c.ID, prefix) })
	switch len(list) {
	case 0:
		return nil, &NotFoundError{prefix}
	case 1:
		return list[0], nil
	}
	e := &AmbiguousError{Prefix: prefix}
	for _, c := range list {
		e.IDs = append(e.IDs, c.ID)
	}
	return nil, e
}
