// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/schedule"
)

const (
	// margin is how much of a CA's limit is drawn, in hundredths. The rest is for
	// certificates in danger, for what a CA counts otherwise than we do, and for
	// what it is asked by others in the same account.
	margin = 90
	// bucketPace keeps the schedule's own orders apart: see need.paced.
	bucketPace = "pace"
	// accountShard has the buckets of the account.
	accountShard = "0"
	// tidyEvery is how many more buckets than are needed a shard has at most.
	tidyEvery = 32
)

// shards are those of a budget.
var shards = strings.Split("0123456789abcdef", "")

// HeldError says that an issuer is not asked, because it would refuse: what it
// allows in a time is used up.
type HeldError struct {
	Issuer string
	// Until is when it can be asked.
	Until time.Time
	// Reason says which limit it is.
	Reason string
	// Account says that nobody else's order would be taken, either, that is needed
	// no more.
	Account bool
	// Instead is the issuer that can be asked in its place, because waiting would
	// bring the certificate into danger; "" if there is none, or no need.
	Instead string

	need need
	pace bool // orders that are not spread need not wait for it
}

// holds reports whether an order for a need waits for the same.
func (e *HeldError) holds(n need) bool {
	return e.Account && n != free && n <= e.need && (n.paced() || !e.pace)
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("issuer %q is not asked before %s: %s (`keyturn limits %s` shows what is left)",
		e.Issuer, stamp(e.Until), e.Reason, e.Issuer)
}

// A need is for what an order is: how much of a limit may be drawn for it, and
// what goes before what.
type need int

const (
	// routine is what the schedule wants.
	routine need = iota
	// free is what draws on nothing.
	free
	// wanted is what somebody waits for, and what is recalled.
	wanted
	// pressing is a certificate whose key others may know, or with little left while
	// somebody waits: all that the CA allows can be drawn for it.
	pressing
	// endangered is a certificate with little left that the schedule wants: as much
	// can be drawn, but evenly. Those that a CA that was away brought into danger
	// come to it together, too, and what they leave is there for what is lost.
	endangered
	// lost is a certificate that is revoked, or ends if nothing is done: the CA is
	// asked whatever the budget says, which may be wrong.
	lost
)

// paced reports whether orders for a need are drawn evenly, so that the schedule
// never uses up at once what somebody may need who waits for a certificate, and
// no herd of renewals meets a CA that was away.
func (n need) paced() bool { return n == routine || n == endangered }

// needs says for what the next order of c would be. scheduled means that nobody
// waits for it.
func (c *Managed) needs(issuer string, scheduled bool, now time.Time) need {
	switch {
	case c.Certificate != nil && (c.revoked() || now.After(c.last())):
		return lost
	case c.limitless(issuer):
		return free
	case c.Certificate != nil && scheduled && now.After(c.danger()):
		return endangered
	case c.Certificate != nil && (c.compromised() || now.After(c.danger())):
		return pressing
	case c.Certificate == nil || !scheduled || c.recalled():
		return wanted
	}
	return routine
}

// revoked reports whether the newest generation was taken back, and compromised
// whether somebody who should not may know its key.
func (c *Managed) revoked() bool {
	r, ok := c.newest()
	return ok && !r.Revoked.IsZero()
}

func (c *Managed) compromised() bool {
	return c.Mark != nil && c.Mark.Reason == event.ReasonCompromised
}

// limitless reports whether the next order of c draws on nothing: it takes the
// place of a certificate of the same CA, which says when to renew (RFC 9773
// section 5), or it is one that was begun and drawn for already.
func (c *Managed) limitless(issuer string) bool {
	if o := c.Order; o != nil && o.Generation == c.Generation+1 && o.Issuer == issuer {
		return true
	}
	return c.window() != nil && c.issuedBy() == issuer
}

// A draw is one on one bucket.
type draw struct {
	key, shard string
	rate       schedule.Rate
	reserve    int  // how many are left alone
	look       bool // only looks whether it could
	back       bool // gives back
}

// newDraw is one on a limit that uses a part of it, in hundredths.
func newDraw(what, of string, rate config.Rate, part int) draw {
	d := draw{key: what, shard: accountShard, rate: schedule.Rate(rate)}
	d.reserve = d.rate.Reserve(part)
	if of != "" {
		sum := sha256.Sum256([]byte(of))
		d.key, d.shard = what+" "+of, hex.EncodeToString(sum[:1])[:1]
	}
	return d
}

// draws are what an order for names draws on. Of what is drawn evenly, every says
// what may come together.
func draws(limits config.Limits, names []string, n need, every time.Duration) []draw {
	part := margin
	if n == pressing || n == endangered {
		part = 100
	}
	list := []draw{newDraw(LimitOrders, "", limits.Orders, part)}
	if n.paced() {
		pace := schedule.Rate(limits.Orders).Even(margin).Within(every)
		list = append(list, newDraw(bucketPace, "", config.Rate(pace), 100))
	}
	for _, domain := range registered(names) {
		list = append(list, newDraw(LimitDomain, domain, limits.Domain, part))
	}
	list = append(list, newDraw(LimitSet, setOf(names), limits.Set, part))
	for _, name := range names {
		d := newDraw(LimitFailures, name, limits.Failures, part)
		d.look = true
		list = append(list, d)
	}
	return slices.DeleteFunc(list, func(d draw) bool { return !d.rate.Limited() })
}

// registered returns the registered domains of names, sorted: one label more
// than the public suffix list has. An IPv4 address counts by itself, an IPv6
// address by its /64.
func registered(names []string) []string {
	var list []string
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			if ip.Is6() {
				list = append(list, netip.PrefixFrom(ip, 64).Masked().String())
			} else {
				list = append(list, name)
			}
			continue
		}
		name = strings.TrimPrefix(name, "*.")
		domain, err := publicsuffix.EffectiveTLDPlusOne(name)
		if err != nil { // it is a public suffix itself
			domain = name
		}
		list = append(list, domain)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// setOf names a set of names in a bucket's key: one of them and how many more
// there are, for people, and a digest of all.
func setOf(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	sum := sha256.Sum256([]byte(strings.Join(sorted, " ")))
	more := ""
	if n := len(sorted) - 1; n > 0 {
		more = fmt.Sprintf("+%d", n)
	}
	return fmt.Sprintf("%s%s %x", sorted[0], more, sum[:8])
}

// draw draws on an issuer's budgets for the next order of c. The error is a
// *HeldError if it has to wait, and then nothing was drawn.
func (m *Manager) draw(ctx context.Context, c *Managed, issuer string, n need) error {
	set, err := m.settings(ctx)
	if err != nil {
		return err
	}
	return m.ledger.draw(ctx, set, c, issuer, n)
}

func (l ledger) draw(ctx context.Context, set *settings, c *Managed, issuer string, n need) error {
	limits, ok := set.limits[issuer]
	if !ok || n == lost || n == free {
		return nil
	}
	held, err := l.take(ctx, issuer, draws(limits, c.Spec.Names, n, l.every))
	if err != nil || held == nil {
		return err
	}
	held.need = n
	if instead, ok := c.standsIn(issuer, set.after); ok && c.cannotWait(held) {
		held.Instead = instead
	}
	return held
}

// cannotWait reports whether waiting for a budget would bring c into danger. What
// is in danger already can wait for its turn, but not until next to nothing is left.
func (c *Managed) cannotWait(held *HeldError) bool {
	switch {
	case c.Certificate == nil:
		return true
	case held.pace:
		return held.Until.After(c.last())
	}
	return held.Until.After(c.danger())
}

// hold notes what a certificate waits for, unless that is noted already. What an
// account waits for is no certificate's own, and not noted. That it cannot be
// noted stops nothing.
func (m *Manager) hold(ctx context.Context, c *Managed, held *HeldError) {
	if held.Account || held.Instead != "" {
		return
	}
	if h := c.Hold; h != nil && h.Until.Equal(held.Until) && h.Reason == held.Reason && (c.Certificate == nil || c.Changed.After(c.danger()) || time.Now().Before(c.danger())) {
		return
	}
	next := c.State
	next.Hold = &event.Hold{Until: held.Until, Reason: held.Reason}
	if _, err := m.append(ctx, c.Position, &next); err != nil && !conflict(err) {
		m.logger.Warn("why a certificate waits could not be noted", "managed_id", c.ID, "error", err)
		return
	}
	crash.Point(crash.HoldNoted)
	m.logger.Info("certificate waits for its issuer's limits", "managed_id", c.ID, "issuer", held.Issuer, "until", stamp(held.Until), "reason", held.Reason)
}

func (d draw) reason() string {
	what, of, _ := strings.Cut(d.key, " ")
	limit := fmt.Sprintf("%d in %s", d.rate.Count, config.Duration(d.rate.Per))
	switch what {
	case bucketPace:
		return "renewals are spread evenly over what it allows"
	case LimitOrders:
		return "the account's orders are used up, " + limit
	case LimitDomain:
		return fmt.Sprintf("the certificates for %s are used up, %s", of, limit)
	case LimitSet:
		return "the certificates for exactly these names are used up, " + limit
	}
	return fmt.Sprintf("the validation of %s failed too often, %s", of, limit)
}

// unproven returns the names whose validation failed at the last attempt, by what
// the CA said.
func (c *Managed) unproven() []string {
	if c.Failure == nil || c.Failure.Problem == nil {
		return nil
	}
	var list []string
	whole := c.Failure.Problem
	for _, p := range append([]event.Problem{*whole}, whole.Parts...) {
		if slices.Contains(validations, strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:")) && p.Name != "" {
			list = append(list, p.Name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// validations are the types of problems that a failed validation ends with (RFC
// 8555 section 6.7).
var validations = []string{"caa", "connection", "dns", "incorrectResponse", "tls", "unauthorized"}

// drawFailures counts validations that failed. That they could not be counted
// stops nothing.
func (m *Manager) drawFailures(ctx context.Context, issuer string, names []string) {
	set, err := m.settings(ctx)
	if err != nil || len(names) == 0 {
		return
	}
	rate := set.limits[issuer].Failures
	if !schedule.Rate(rate).Limited() {
		return
	}
	for _, name := range names {
		if err := m.ledger.count(ctx, issuer, newDraw(LimitFailures, name, rate, margin)); err != nil {
			m.logger.Warn("a failed validation is not counted", "issuer", issuer, "name", name, "error", err)
		}
	}
}
