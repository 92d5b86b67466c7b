// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/schedule"
	"github.com/keyturn/keyturn/issuer/acme"
)

// settings are what of the shared configuration says when, and whom, to ask.
type settings struct {
	at bus.Position
	// after is how many failures in a row make the next issuer be asked.
	after int
	// limits are by issuer. One that is not there has none.
	limits map[string]config.Limits
	// informs has the issuers that may say when to renew.
	informs map[string]bool
}

func newSettings(c *config.Shared, at bus.Position) *settings {
	s := &settings{at: at, after: c.Defaults.FallbackAfter, limits: make(map[string]config.Limits), informs: make(map[string]bool)}
	if s.after <= 0 {
		s.after = fallbackAfter
	}
	for name, i := range c.Issuers {
		if i.ACME == nil {
			continue
		}
		s.informs[name] = true
		if limits := limitsOf(i.ACME); limits != (config.Limits{}) {
			s.limits[name] = limits
		}
	}
	return s
}

// limitsOf are an issuer's limits: those that the configuration has, or else those
// that the CA publishes. The zero Limits are none.
func limitsOf(c *config.ACME) config.Limits {
	if c.Limits != nil {
		return *c.Limits
	}
	l := acme.Presets[c.Directory].Limits
	return config.Limits{
		Orders: config.Rate(l.Orders), Domain: config.Rate(l.Domain),
		Set: config.Rate(l.Set), Failures: config.Rate(l.Failures),
	}
}

// settings reads them. They are parsed once for each configuration.
func (m *Manager) settings(ctx context.Context) (*settings, error) {
	if known := m.set.Load(); known != nil {
		entry, err := m.get(ctx, event.ConfigKey)
		if err == nil && entry.Position == known.at {
			return known, nil
		}
	}
	shared, at, err := m.shared(ctx)
	if err != nil {
		return nil, err
	}
	s := newSettings(shared, at)
	m.set.Store(s)
	return s, nil
}

// takeConfig takes what the schedule goes by of the shared configuration. One
// that cannot be believed, or is wrong, changes nothing: each attempt says so.
func (s *scheduler) takeConfig(u bus.Update) {
	if u.CaughtUp {
		return
	}
	set, err := patiently(s.ctx, func() (*settings, error) { return s.m.settings(s.ctx) })
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.set
	if s.set = set; old != nil && maps.Equal(old.informs, set.informs) {
		return
	}
	for _, c := range s.known { // until now, asking them when to renew was not planned
		s.planAskLocked(c)
	}
	s.poke()
}

// What is limited, in Limit.What.
const (
	LimitOrders   = "orders"   // new orders of the account
	LimitDomain   = "domain"   // certificates of one registered domain, or address
	LimitSet      = "set"      // certificates of exactly the same names
	LimitFailures = "failures" // failed validations of one name
)

// A Limit is what is left of one of an issuer's limits, by what all managers
// asked of it.
type Limit struct {
	Issuer string
	// What is one of the constants above, and Of what it is about: a domain, an
	// address, names; "" for the account.
	What, Of string
	// Rate is what the issuer allows, and Reserve how many of it are left alone but
	// for certificates in danger.
	Rate    config.Rate
	Reserve int
	// Left is how many more can be asked for now, the reserve not counted.
	Left int
	// Full is when everything can be asked for again; zero if it can now.
	Full time.Time
}

// Limits returns what is left of an issuer's limits, or of all issuers' for "":
// those of the account, and of everything else that was drawn on and is not full
// again. They are sorted by issuer, and the least that is left comes first.
//
// Orders that take the place of a certificate, at a CA that says when to renew,
// are not counted: the CA does not limit them.
func (m *Manager) Limits(ctx context.Context, issuer string) ([]Limit, error) {
	set, err := m.settings(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(set.limits))
	if issuer != "" {
		shared, _, err := m.shared(ctx)
		if err != nil {
			return nil, err
		}
		if _, ok := shared.Issuers[issuer]; !ok {
			return nil, &InvalidError{fmt.Sprintf("there is no issuer %q in the shared configuration: `keyturn conf display` shows it", issuer)}
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name != issuer })
	}
	var all []Limit
	for _, name := range names {
		list, err := m.left(ctx, name, set.limits[name])
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func (m *Manager) left(ctx context.Context, issuer string, limits config.Limits) ([]Limit, error) {
	now := time.Now()
	var list []Limit
	add := func(key string, full time.Time) {
		what, of, _ := strings.Cut(key, " ")
		rate := rateOf(limits, what)
		if !rate.Limited() {
			return
		}
		if what == LimitSet { // the digest is not for people
			of, _, _ = strings.Cut(of, " ")
		}
		reserve := rate.Reserve(margin)
		l := Limit{Issuer: issuer, What: what, Of: of, Rate: config.Rate(rate), Reserve: reserve, Left: rate.Left(full, now, reserve)}
		if full.After(now) {
			l.Full = full
		}
		list = append(list, l)
	}
	seen := false
	for _, shard := range shards {
		b, _, err := m.ledger.load(ctx, issuer, shard)
		if err != nil {
			return nil, err
		}
		for _, bucket := range b.Buckets {
			if bucket.Full.After(now) {
				add(bucket.Key, bucket.Full)
				seen = seen || bucket.Key == LimitOrders
			}
		}
	}
	if !seen {
		add(LimitOrders, time.Time{})
	}
	slices.SortFunc(list, func(a, b Limit) int {
		if (a.What == LimitOrders) != (b.What == LimitOrders) {
			if a.What == LimitOrders {
				return -1
			}
			return 1
		}
		if a.Left != b.Left {
			return a.Left - b.Left
		}
		return strings.Compare(a.What+a.Of, b.What+b.Of)
	})
	return list, nil
}

// rateOf is an issuer's limit.
func rateOf(l config.Limits, what string) schedule.Rate {
	switch what {
	case LimitOrders:
		return schedule.Rate(l.Orders)
	case LimitDomain:
		return schedule.Rate(l.Domain)
	case LimitSet:
		return schedule.Rate(l.Set)
	case LimitFailures:
		return schedule.Rate(l.Failures)
	}
	return schedule.Rate{}
}
