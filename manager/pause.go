// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/printable"
)

// maxReason bounds what is said of a pause, in bytes.
const maxReason = 1000

// Pause keeps a certificate from being renewed, by whomever, until Resume. It
// goes on to be served, and ends when it ends. What is under way is finished. The
// reason is text for people and may be empty. Pausing what is paused gives it the
// new reason; without one it keeps its own.
//
// The error may be a *NotFoundError, a *RemovedError or an *InvalidError.
func (m *Manager) Pause(ctx context.Context, id, reason string) error {
	p, err := newPause(reason)
	if err != nil {
		return err
	}
	if err := m.setPause(ctx, id, p); err != nil {
		return err
	}
	m.logger.Info("certificate is paused", "managed_id", id, "reason", p.Reason)
	return nil
}

// Resume ends a Pause: what became due meanwhile is renewed at once. Resuming
// what is not paused changes nothing. The reason is logged. The error may be a
// *NotFoundError or a *RemovedError.
func (m *Manager) Resume(ctx context.Context, id, reason string) error {
	if err := m.setPause(ctx, id, nil); err != nil {
		return err
	}
	m.logger.Info("certificate is not paused any more", "managed_id", id, "reason", reason)
	return nil
}

// PauseIssuer keeps all managers from asking an issuer for anything until
// ResumeIssuer. What is due by it waits, and no other issuer stands in for that.
// What is under way is finished. The issuer must be in the shared configuration. The
// reason is as for Pause.
func (m *Manager) PauseIssuer(ctx context.Context, issuer, reason string) error {
	p, err := newPause(reason)
	if err != nil {
		return err
	}
	if err := m.setControl(ctx, issuer, p); err != nil {
		return err
	}
	m.logger.Warn("issuer is paused", "issuer", issuer, "reason", p.Reason)
	return nil
}

// ResumeIssuer ends a PauseIssuer. What waited is renewed, what ends soonest
// first.
func (m *Manager) ResumeIssuer(ctx context.Context, issuer, reason string) error {
	if err := m.setControl(ctx, issuer, nil); err != nil {
		return err
	}
	m.logger.Info("issuer is not paused any more", "issuer", issuer, "reason", reason)
	return nil
}

func newPause(reason string) (*event.Pause, error) {
	if len(reason) > maxReason {
		return nil, &InvalidError{fmt.Sprintf("the reason for a pause has %d bytes: at most %d are kept", len(reason), maxReason)}
	}
	return &event.Pause{At: time.Now(), Reason: printable.Line(reason)}, nil
}

func (m *Manager) setPause(ctx context.Context, id string, p *event.Pause) error {
	return replacePause(id, p, func() (*event.Pause, func(*event.Pause) error, error) {
		c, err := m.Get(ctx, id)
		switch {
		case err != nil:
			return nil, nil, err
		case c.Removed:
			return nil, nil, &RemovedError{id}
		}
		return c.Pause, func(p *event.Pause) error {
			next := c.State
			next.Pause = p
			_, err := m.append(ctx, c.Position, &next)
			crash.Point(crash.Paused)
			return err
		}, nil
	})
}

func (m *Manager) setControl(ctx context.Context, issuer string, p *event.Pause) error {
	shared, _, err := m.shared(ctx)
	if err != nil {
		return err
	}
	if _, ok := shared.Issuers[issuer]; !ok {
		return &InvalidError{fmt.Sprintf("there is no issuer %q in the shared configuration: `keyturn conf display` shows it", issuer)}
	}
	return replacePause(fmt.Sprintf("issuer %q", issuer), p, func() (*event.Pause, func(*event.Pause) error, error) {
		old, at, err := m.control(ctx, issuer)
		if err != nil {
			return nil, nil, err
		}
		return old.Pause, func(p *event.Pause) error {
			_, err := m.append(ctx, at, &event.IssuerControl{Issuer: issuer, Pause: p})
			crash.Point(crash.IssuerPaused)
			return err
		}, nil
	})
}

// replacePause writes p where read finds another pause, or none, until it is first.
func replacePause(what string, p *event.Pause, read func() (old *event.Pause, write func(*event.Pause) error, err error)) error {
	for {
		old, write, err := read()
		switch {
		case err != nil:
			return err
		case old == nil && p == nil:
			return nil
		case old != nil && p != nil && p.Reason == "":
			p.Reason = old.Reason
		}
		if err = write(p); err == nil {
			return nil
		} else if !conflict(err) {
			return fmt.Errorf("pausing or resuming %s: %w", what, err)
		}
	}
}

// control is what operators said of an issuer; nothing if they never did, or if
// it cannot be believed: whoever writes to the bus without being a manager stops
// no renewal.
func (m *Manager) control(ctx context.Context, issuer string) (*event.IssuerControl, bus.Position, error) {
	c := &event.IssuerControl{Issuer: issuer}
	key := event.ControlKey(issuer)
	entry, err := m.newest(ctx, key)
	if err != nil {
		return nil, bus.Position{}, &busError{fmt.Errorf("reading whether issuer %q is paused: %w", issuer, err)}
	}
	if len(entry.Data) == 0 {
		return c, entry.Position, nil
	}
	e, err := m.open(ctx, key, entry.Data)
	if err != nil {
		m.logger.Error("whether an issuer is paused cannot be believed; it counts as not paused", "issuer", issuer, "error", err)
		return c, entry.Position, nil
	}
	if known, ok := e.Body.(*event.IssuerControl); ok {
		c = known
	}
	return c, entry.Position, nil
}

// paused returns an *InvalidError if nobody may renew the certificate, or ask
// the issuer.
func (m *Manager) paused(ctx context.Context, c *Managed, issuer string) error {
	if c.Pause != nil {
		return &InvalidError{fmt.Sprintf("%s is paused%s: `keyturn cert resume %s` ends that", c.ID, because(c.Pause), c.ID)}
	}
	control, _, err := m.control(ctx, issuer)
	if err == nil && control.Pause != nil {
		return &InvalidError{fmt.Sprintf("issuer %q is paused%s: `keyturn cert resume --issuer %s` ends that", issuer, because(control.Pause), issuer)}
	}
	return err
}

func because(p *event.Pause) string {
	if p.Reason == "" {
		return ""
	}
	return " (" + p.Reason + ")"
}

// takeControl takes what operators say of an issuer.
func (s *scheduler) takeControl(u bus.Update) {
	issuer := path.Base(u.Key)
	if u.CaughtUp || event.CheckName(issuer) != nil {
		return
	}
	c, err := patiently(s.ctx, func() (*event.IssuerControl, error) {
		c, _, err := s.m.control(s.ctx, issuer)
		return c, err
	})
	if err != nil {
		return // ctx has ended
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused[issuer] = c.Pause != nil
	s.poke()
}

// lostControls is called when they are about to be read anew, because the log was
// replaced or went back.
func (s *scheduler) lostControls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.paused)
}
