// SPDX-License-Identifier: Apache-2.0

// Package dns answers dns-01 challenges (RFC 8555 section 8.4): it has a
// [Provider] set a TXT record, and waits until the name servers that a CA asks
// have it.
//
// [New] makes a solver of a provider. The packages below this one are providers:
// one for each DNS service, and exec, webhook, rfc2136 and acmedns for what has no
// package of its own.
//
// # Delegation
//
// If _acme-challenge.NAME is a CNAME, the record is set where it leads, as the CA
// follows it, too: so the credentials of a zone that holds nothing but answers are
// enough.
//
// # Propagation
//
// The record has to be seen at every authoritative server that its zone names, at
// every address that answers. A primary server that the zone does not name is not
// asked: no CA asks it. Addresses that nothing answers from do not count as long
// as one does; if none answers, as behind a firewall that lets only the own
// resolvers out, the resolvers are asked instead, and this is logged.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/solver"
)

// A Record is the TXT record that answers a challenge. Its names are in A-labels,
// lower case, without a trailing dot.
type Record struct {
	// Name is where it stands: _acme-challenge.NAME, or what that is an alias of.
	Name string
	// Value is its text.
	Value string
	// Zone is the zone that Name is in; "" if it is not known.
	Zone string
	// KeyAuthorization is what Value is the digest of. It is for libraries that want
	// to make Value themselves.
	KeyAuthorization string
}

// A Provider changes what a zone holds. Its methods may be called by any number of
// goroutines at once, but not for one name.
type Provider interface {
	// Present adds the record to those that are there. It need not wait until name
	// servers have it.
	Present(ctx context.Context, r Record) error
	// CleanUp takes the record away. It is called on the same Provider after each
	// Present, also after one that failed.
	CleanUp(ctx context.Context, r Record) error
}

// A Keeper is a Provider that can say that it keeps other records of the name when
// it takes one away. Without it, challenges for one name wait for each other: those
// of example.com and *.example.com have one name.
type Keeper interface {
	Provider
	KeepsOthers() bool
}

// Bounds where Config says nothing.
const (
	// DefaultPropagation is how long name servers may take.
	DefaultPropagation = 2 * time.Minute
	// callTime is how long a provider may take to add or to take away a record. Of
	// the services some answer only when the change is everywhere, after a minute.
	callTime = 2 * time.Minute
)

// Config is what a solver consists of.
type Config struct {
	Provider Provider
	// Resolver is asked for aliases, zones and name servers; nil is the system's.
	Resolver *resolve.Resolver
	// Propagation is how long name servers may take to have the record; 0 is
	// DefaultPropagation.
	Propagation time.Duration
	// Logger is told of progress; nil is slog.Default().
	Logger *slog.Logger
}

// A Solver answers dns-01 challenges.
type Solver struct {
	c     Config
	names names
}

var _ solver.Solver = (*Solver)(nil)

// New returns a solver. It asks nobody anything yet.
func New(c Config) *Solver {
	if c.Resolver == nil {
		c.Resolver = resolve.New(nil)
	}
	if c.Propagation == 0 {
		c.Propagation = DefaultPropagation
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Solver{c: c}
}

// Solve sets the record and returns when name servers have it. The error may be a
// [PropagationError].
func (s *Solver) Solve(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	if c.Type != solver.DNS01 {
		return nil, fmt.Errorf("answering for %s through DNS: this is a challenge of type %s, not of %s", c.Name, c.Type, solver.DNS01)
	}
	if _, err := netip.ParseAddr(c.Name); err == nil {
		return nil, fmt.Errorf("answering for %s through DNS: control of an address cannot be proven by %s; use another challenge", c.Name, solver.DNS01)
	}
	r, zoneErr, err := s.record(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("answering for %s through DNS: %w", c.Name, err)
	}
	free, err := s.span(ctx, r.Name)
	if err != nil {
		return nil, fmt.Errorf("answering for %s through DNS: waiting for another challenge at %s to end: %w", c.Name, r.Name, err)
	}
	if err := s.present(ctx, r, zoneErr); err != nil {
		s.forsake(ctx, r, free)
		return nil, fmt.Errorf("answering for %s through DNS: %w", c.Name, err)
	}
	var once sync.Once
	return func(ctx context.Context) error {
		var err error
		once.Do(func() {
			defer free()
			err = s.cleanUp(ctx, r)
		})
		return err
	}, nil
}

// record finds out where the answer has to stand. That no zone is known is an
// error of its own: some providers need none.
func (s *Solver) record(ctx context.Context, c solver.Challenge) (r Record, zoneErr, err error) {
	name, err := s.c.Resolver.Follow(ctx, "_acme-challenge."+c.Name)
	if err != nil {
		return Record{}, nil, err
	}
	if !plain(name) {
		return Record{}, nil, fmt.Errorf("_acme-challenge.%s is an alias of %q, where no record is set: only letters, digits, \"-\" and \"_\" are taken there", c.Name, name)
	}
	zone, zoneErr := s.c.Resolver.Zone(ctx, name)
	if ctx.Err() != nil {
		return Record{}, nil, zoneErr
	}
	return Record{Name: name, Value: c.DNSValue(), Zone: zone, KeyAuthorization: c.KeyAuthorization}, zoneErr, nil
}

// plain reports whether a name can be handed on to programs and services. Who has the
// DNS of a name chooses what it is an alias of, such as "--option=x" or a wildcard.
func plain(name string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	return name != "" && name[0] != '-' && !strings.ContainsFunc(name, other)
}

// span waits until the name can be used, and returns what ends that.
func (s *Solver) span(ctx context.Context, name string) (free func(), err error) {
	if k, ok := s.c.Provider.(Keeper); ok && k.KeepsOthers() {
		return func() {}, nil
	}
	return s.names.lock(ctx, "span "+name)
}

func (s *Solver) present(ctx context.Context, r Record, zoneErr error) error {
	log := s.c.Logger.With("record", r.Name, "zone", r.Zone)
	log.Info("setting the record that answers a challenge")
	if err := s.call(ctx, r, s.c.Provider.Present); err != nil {
		// An order that was interrupted may have left its record, and a service may
		// refuse to hold it twice.
		if !s.there(ctx, r) {
			return errors.Join(fmt.Errorf("setting the TXT record %s: %w", r.Name, err), zoneErr)
		}
		log.Warn("the record could not be set, but it is there", "error", err)
	}
	return s.wait(ctx, r, log)
}

// call runs one of the provider's methods, alone for the name.
func (s *Solver) call(ctx context.Context, r Record, method func(context.Context, Record) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	free, err := s.names.lock(ctx, "call "+r.Name)
	if err != nil {
		return err
	}
	defer free()
	return method(ctx, r)
}

// cleanUp takes the record away, even if the context has ended.
func (s *Solver) cleanUp(ctx context.Context, r Record) error {
	if err := s.call(context.WithoutCancel(ctx), r, s.c.Provider.CleanUp); err != nil {
		return fmt.Errorf("taking away the TXT record %s with the value %q; it does no harm and can be taken away by hand: %w", r.Name, r.Value, err)
	}
	return nil
}

// forsake takes away what a failed attempt may have left.
func (s *Solver) forsake(ctx context.Context, r Record, free func()) {
	defer free()
	if err := s.cleanUp(ctx, r); err != nil {
		s.c.Logger.Debug("nothing to take away, or it failed", "record", r.Name, "error", err)
	}
}
