// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/seal"
)

// ErrNoConfig means that there is no shared configuration yet.
var ErrNoConfig = errors.New("there is no shared configuration yet: `keyturn conf update < FILE` makes one")

// A ConfigEntry is the shared configuration as it stands on the bus.
type ConfigEntry struct {
	Text     []byte // holds secrets
	Position bus.Position
	Signer   seal.KeyID // the manager that wrote it, or signed it anew
	Signed   time.Time  // when, by its clock
}

// ConfigText returns the text of the shared configuration and where it stands.
// It holds secrets. The error may be ErrNoConfig.
func (m *Manager) ConfigText(ctx context.Context) ([]byte, bus.Position, error) {
	c, err := m.Config(ctx)
	if err != nil {
		return nil, bus.Position{}, err
	}
	return c.Text, c.Position, nil
}

// Config returns the shared configuration as it stands. The error may be
// ErrNoConfig.
func (m *Manager) Config(ctx context.Context) (*ConfigEntry, error) {
	e, at, err := m.configEntry(ctx)
	if err != nil {
		return nil, err
	}
	return m.openConfig(e, at)
}

// configEntry reads and verifies what Config opens.
func (m *Manager) configEntry(ctx context.Context) (e *event.Event, at bus.Position, err error) {
	e, at, err = m.entry(ctx, event.ConfigKey)
	if isNotFound(err) {
		return nil, at, ErrNoConfig
	}
	if err != nil {
		return nil, at, fmt.Errorf("reading the shared configuration: %w", err)
	}
	return e, at, nil
}

func (m *Manager) openConfig(e *event.Event, at bus.Position) (*ConfigEntry, error) {
	c, ok := e.Body.(*event.Config)
	if !ok {
		return nil, fmt.Errorf("reading the shared configuration: %w", event.ErrUnsupported)
	}
	text, err := c.Open(m.tenant, m.identity.Sealing)
	if err != nil {
		return nil, fmt.Errorf("opening the shared configuration: %w", err)
	}
	return &ConfigEntry{text, at, e.Signer, e.Time}, nil
}

// A parsedConfig is the shared configuration that stands at a position.
type parsedConfig struct {
	at     bus.Position
	shared *config.Shared
}

// shared returns the shared configuration, which the caller must not change. Its
// signature is verified each time, because managers can be revoked; it is opened and
// parsed once for as long as it is the same.
func (m *Manager) shared(ctx context.Context) (*config.Shared, bus.Position, error) {
	e, at, err := m.configEntry(ctx)
	if err != nil {
		return nil, at, err
	}
	if known := m.parsed.Load(); known != nil && known.at == at {
		return known.shared, at, nil
	}
	c, err := m.openConfig(e, at)
	if err != nil {
		return nil, at, err
	}
	shared, err := config.ParseShared(c.Text)
	if err != nil {
		return nil, at, fmt.Errorf("the shared configuration on the bus: %w", err)
	}
	m.parsed.Store(&parsedConfig{at, shared})
	return shared, at, nil
}

// UpdateConfig replaces the shared configuration that stands at after, the zero
// Position if there is none yet; a *bus.ConflictError means that it is another
// one by now. The text is validated first: a configuration with which a managed
// certificate could not be renewed is refused.
func (m *Manager) UpdateConfig(ctx context.Context, text []byte, after bus.Position) (bus.Position, error) {
	shared, err := config.ParseShared(text)
	if err != nil {
		return bus.Position{}, err
	}
	if err := m.fits(ctx, shared); err != nil {
		return bus.Position{}, err
	}
	var c event.Config
	if err := c.Seal(m.tenant, m.identity.Sealing[0].Public(), text); err != nil {
		return bus.Position{}, err
	}
	at, err := m.append(ctx, after, &c)
	crash.Point(crash.ConfigWritten)
	if err != nil {
		return at, fmt.Errorf("writing the shared configuration: %w", err)
	}
	return at, nil
}

// fits checks a new configuration against what is there: every issuer in use
// is still in it, still goes with the certificate's challenge and profile, and opens
// with its new settings if it was made.
func (m *Manager) fits(ctx context.Context, shared *config.Shared) error {
	list, err := m.List(ctx)
	if err != nil {
		return err
	}
	var problems []error
	inUse := make(map[string]int)
	for _, c := range list {
		for _, name := range append([]string{c.Spec.Issuer}, c.Spec.Fallbacks...) {
			inUse[name]++
		}
		for _, check := range []func(*event.Spec, *config.Shared) error{checkProof, checkPolicy} {
			if err := check(&c.Spec, shared); err != nil {
				problems = append(problems, fmt.Errorf("certificate %s: %w", c.ID, err))
			}
		}
	}
	for name, n := range inUse {
		if _, ok := shared.Issuers[name]; !ok {
			problems = append(problems, &InvalidError{fmt.Sprintf("issuer %q is left out, and renews %s: `keyturn cert ls` shows which", name, plural.Of(n, "managed certificate"))})
		}
	}
	for name := range shared.Issuers {
		state, _, err := get[*event.IssuerState](ctx, m, event.IssuerKey(name))
		if isNotFound(err) {
			continue
		}
		if err == nil {
			_, err = m.openIssuer(state, shared)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("issuer %q: %w", name, err))
		}
	}
	return errors.Join(problems...)
}
