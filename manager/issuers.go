// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
)

// An issuerType is how issuers of one type come to be: from their settings, and
// from what they keep on the bus for all managers.
type issuerType interface {
	// found completes what an issuer keeps that is used for the first time. It asks
	// nobody.
	found(m *Manager, s *event.IssuerState, shared *config.Shared) error
	// open makes the issuer of what it keeps, which is of this type. It asks nobody.
	open(m *Manager, s *event.IssuerState, shared *config.Shared) (issuer.Issuer, error)
	// enrol asks the CA for what has to be there before it is asked to sign, such as
	// an account, and returns what the issuer keeps from then on; nil if that is what
	// it keeps already.
	enrol(ctx context.Context, m *Manager, i issuer.Issuer, s *event.IssuerState, shared *config.Shared) (*event.IssuerState, error)
	// tell completes what people are told of an issuer. s is nil if it was never used.
	tell(m *Manager, s *event.IssuerState, c config.Issuer, i *IssuerInfo) error
}

// issuerTypes are all types, by their name in the configuration.
var issuerTypes = map[string]issuerType{
	"acme":   acmeIssuer{},
	"local":  localIssuer{},
	"vault":  plainIssuer{},
	"cfssl":  plainIssuer{},
	"awspca": plainIssuer{},
}

// enrolTimeout bounds what is asked of a CA before it is asked to sign.
const enrolTimeout = time.Minute

// A cachedIssuer is good while the configuration it was made from, and its
// state, are the newest.
type cachedIssuer struct {
	config, state bus.Position
	issuer        issuer.Issuer
}

// An opening is an issuer that is being made ready to be asked.
type opening struct {
	done   chan struct{} // closed when the others are set
	issuer issuer.Issuer
	err    error
	gone   bool // whoever was at it was called off
}

// issuer returns the named issuer of the shared configuration, ready to be asked.
// One who wants it makes it ready, and all who want it meanwhile share what comes of
// that.
func (m *Manager) issuer(ctx context.Context, name string) (issuer.Issuer, error) {
	for {
		m.mu.Lock()
		o := m.openings[name]
		if o == nil {
			o = &opening{done: make(chan struct{})}
			m.openings[name] = o
			m.mu.Unlock()
			o.issuer, o.err = m.ready(ctx, name)
			o.gone = ctx.Err() != nil
			m.mu.Lock()
			delete(m.openings, name)
			m.mu.Unlock()
			close(o.done)
			return o.issuer, o.err
		}
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-o.done:
		}
		if !o.gone {
			return o.issuer, o.err
		}
	}
}

// ready is issuer for the one who is at it.
func (m *Manager) ready(ctx context.Context, name string) (issuer.Issuer, error) {
	for {
		shared, at, err := m.shared(ctx)
		if err != nil {
			return nil, err
		}
		c, ok := shared.Issuers[name]
		if !ok {
			return nil, noIssuer(name)
		}
		state, stateAt, err := m.kept(ctx, name, shared)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", name, err)
		}
		m.mu.Lock()
		cached := m.issuers[name]
		m.mu.Unlock()
		if cached.config == at && cached.state == stateAt {
			return cached.issuer, nil
		}
		i, err := m.openIssuer(state, shared)
		if err != nil {
			return nil, &InvalidError{fmt.Sprintf("issuer %q: %v", name, err)}
		}
		next, err := m.enrol(ctx, i, c.Type, state, shared)
		switch {
		case err != nil:
			return nil, fmt.Errorf("issuer %q: %w", name, err)
		case next == nil:
			m.mu.Lock()
			m.issuers[name] = cachedIssuer{at, stateAt, i}
			m.mu.Unlock()
			m.letGo(name, cached.issuer)
			return i, nil
		}
		crash.Point(crash.Enrolled)
		if _, err := m.append(ctx, stateAt, next); err != nil && !conflict(err) {
			return nil, fmt.Errorf("issuer %q: %w", name, err)
		}
	}
}

// letGo ends what an issuer holds that is asked no more, such as a login.
func (m *Manager) letGo(name string, i issuer.Issuer) {
	if c, ok := i.(io.Closer); ok {
		if err := c.Close(); err != nil {
			m.logger.Warn("an issuer could not be closed", "issuer", name, "error", err)
		}
	}
}

// letGoAll is letGo for all issuers. Those that held something are made anew when
// they are wanted.
func (m *Manager) letGoAll() {
	m.mu.Lock()
	held := make(map[string]issuer.Issuer)
	for name, cached := range m.issuers {
		if _, ok := cached.issuer.(io.Closer); ok {
			held[name] = cached.issuer
			delete(m.issuers, name)
		}
	}
	m.mu.Unlock()
	for name, i := range held {
		m.letGo(name, i)
	}
}

func (m *Manager) enrol(ctx context.Context, i issuer.Issuer, kind string, s *event.IssuerState, shared *config.Shared) (*event.IssuerState, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	return issuerTypes[kind].enrol(ctx, m, i, s, shared)
}

// kept returns what an issuer keeps, which it gets if it is used for the first
// time.
func (m *Manager) kept(ctx context.Context, name string, shared *config.Shared) (*event.IssuerState, bus.Position, error) {
	s, at, err := get[*event.IssuerState](ctx, m, event.IssuerKey(name))
	if isNotFound(err) {
		return m.found(ctx, name, shared)
	}
	return s, at, err
}

// found makes an issuer that is used for the first time. Of several managers
// that do so at once, one's issuer is kept, and all get that.
func (m *Manager) found(ctx context.Context, name string, shared *config.Shared) (*event.IssuerState, bus.Position, error) {
	c := shared.Issuers[name]
	s := &event.IssuerState{Name: name, Kind: c.Type}
	if err := issuerTypes[c.Type].found(m, s, shared); err != nil {
		return nil, bus.Position{}, err
	}
	at, err := m.append(ctx, bus.Position{}, s)
	crash.Point(crash.IssuerMade)
	if conflict(err) {
		return get[*event.IssuerState](ctx, m, event.IssuerKey(name))
	}
	return s, at, err
}

func (m *Manager) openIssuer(s *event.IssuerState, shared *config.Shared) (issuer.Issuer, error) {
	c := shared.Issuers[s.Name]
	if s.Kind != c.Type {
		return nil, fmt.Errorf("it was made as type %q and is configured as %q: a new type needs a new name", s.Kind, c.Type)
	}
	return issuerTypes[c.Type].open(m, s, shared)
}

// Roots returns the CA certificates (DER) of a named issuer that is its own
// root, making the issuer if it was never used.
func (m *Manager) Roots(ctx context.Context, name string) ([][]byte, error) {
	shared, _, err := m.shared(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := shared.Issuers[name]; !ok {
		return nil, noIssuer(name)
	}
	s, _, err := m.kept(ctx, name, shared)
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", name, err)
	}
	if len(s.Roots) == 0 {
		return nil, errors.New("issuer " + name + " is not its own root")
	}
	return s.Roots, nil
}

// IssuerInfo is what people are told of an issuer.
type IssuerInfo struct {
	// Name is its name in the shared configuration, and Type that of its settings.
	Name, Type string
	// Default says that it is asked where a request names no other.
	Default bool
	// Used says that it was used before: what it keeps is on the bus.
	Used bool
	// Directory is the address of an ACME CA, and Account that of the account there;
	// "" until it is made.
	Directory, Account string
	// Address is the URL of a CA that is no ACME CA, or its ARN; "" if the settings do not say, or
	// it is here.
	Address string
	// Contact are the mail addresses of the account, and TermsAgreed says that the
	// CA's terms are agreed to, by the settings.
	Contact     []string
	TermsAgreed bool
	// Pause is set while nothing is asked of it.
	Pause *event.Pause
}

// Issuers returns the issuers of the shared configuration, by name. It asks none
// of them. One whose state cannot be read is an error, and the others are returned
// nevertheless.
func (m *Manager) Issuers(ctx context.Context) ([]IssuerInfo, error) {
	shared, _, err := m.shared(ctx)
	if err != nil {
		return nil, err
	}
	first, _ := issuersOf(Request{}, shared)
	var list []IssuerInfo
	var bad []error
	for name, c := range shared.Issuers {
		i := IssuerInfo{Name: name, Type: c.Type, Default: name == first}
		if err := m.tell(ctx, c, &i); err != nil {
			bad = append(bad, fmt.Errorf("issuer %q: %w", name, err))
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b IssuerInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list, errors.Join(bad...)
}

func (m *Manager) tell(ctx context.Context, c config.Issuer, i *IssuerInfo) error {
	control, _, err := get[*event.IssuerControl](ctx, m, event.ControlKey(i.Name))
	if err == nil {
		i.Pause = control.Pause
	} else if !isNotFound(err) {
		return err
	}
	s, _, err := get[*event.IssuerState](ctx, m, event.IssuerKey(i.Name))
	if err != nil && !isNotFound(err) {
		return err
	}
	i.Used = err == nil
	return issuerTypes[c.Type].tell(m, s, c, i)
}
