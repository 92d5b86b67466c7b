// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

// orderDetail is what is under way at a CA.
type orderDetail struct {
	URL        string     `json:"url"`
	Status     string     `json:"status,omitempty"` // the CA's word, when it was last looked at
	Issuer     string     `json:"issuer"`
	Generation uint64     `json:"generation"`
	At         time.Time  `json:"at"`
	Expires    *time.Time `json:"expires,omitempty"`
}

// failureDetail is the last of several failed attempts.
type failureDetail struct {
	Attempts   uint64         `json:"attempts"`
	At         time.Time      `json:"at"`
	Next       time.Time      `json:"next"`
	RetryAfter *time.Time     `json:"retry_after,omitempty"` // before which the CA wants not to be asked
	Issuer     string         `json:"issuer,omitempty"`
	Order      string         `json:"order,omitempty"`
	Message    string         `json:"message"`
	Problem    *problemDetail `json:"problem,omitempty"` // the CA's own words
}

// problemDetail is a problem document, with the members of RFC 9457 and RFC 8555.
type problemDetail struct {
	Type        string          `json:"type,omitempty"`
	Title       string          `json:"title,omitempty"`
	Detail      string          `json:"detail,omitempty"`
	Instance    string          `json:"instance,omitempty"`
	Status      uint64          `json:"status,omitempty"`
	Identifier  string          `json:"identifier,omitempty"`
	Subproblems []problemDetail `json:"subproblems,omitempty"`
}

// renewalDetail is what the CA says of when to renew (RFC 9773).
type renewalDetail struct {
	Start       *time.Time `json:"start,omitempty"`
	End         *time.Time `json:"end,omitempty"`
	Explanation string     `json:"explanation,omitempty"`
	Asked       time.Time  `json:"asked"`
	Next        time.Time  `json:"next"` // when it is asked again
}

type markDetail struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// holdDetail is until when a budget is used up.
type holdDetail struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// underWay adds what keeps the next generation from being there.
func (d *detail) underWay(c *manager.Managed) {
	if o := c.Order; o != nil {
		d.Order = &orderDetail{o.URL, o.Status, o.Issuer, o.Generation, o.At, timeOrNil(o.Expires)}
	}
	if f := c.Failure; f != nil {
		d.Failure = &failureDetail{f.Attempts, f.At, f.Next, timeOrNil(f.RetryAfter), f.Issuer, f.Order, f.Message, problemOf(f.Problem)}
	}
	if r := c.Renewal; r != nil {
		d.Renewal = &renewalDetail{timeOrNil(r.Start), timeOrNil(r.End), r.Explanation, r.Asked, r.Next}
	}
	if m := c.Mark; m != nil {
		d.Mark = &markDetail{m.Reason, m.At}
	}
	if h := c.Hold; h != nil {
		d.Hold = &holdDetail{h.Until, h.Reason}
	}
	d.Pause = pauseOf(c.Pause)
}

// timeOrNil returns nil for no time.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func problemOf(p *event.Problem) *problemDetail {
	if p == nil {
		return nil
	}
	d := &problemDetail{Type: p.Type, Title: p.Title, Detail: p.Detail, Instance: p.Instance, Status: p.Status, Identifier: p.Name}
	for i := range p.Parts {
		d.Subproblems = append(d.Subproblems, *problemOf(&p.Parts[i]))
	}
	return d
}

// now says, a line each, what keeps the next generation from being there, the
// CA's own words included.
func (d *detail) now() []string {
	var lines []string
	say := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	if o := d.Order; o != nil {
		say("order for generation %d at %s since %s: %s %s", o.Generation, o.Issuer, stamp(o.At), printable.Line(o.URL), printable.Line(o.Status))
	}
	if f := d.Failure; f != nil {
		at := ""
		if f.Issuer != "" {
			at = " at " + f.Issuer
		}
		say("attempt %d failed%s, %s; the next is %s", f.Attempts, at, stamp(f.At), stamp(f.Next))
		say("  %s", printable.Line(f.Message))
		if f.Order != "" {
			say("  order %s", printable.Line(f.Order))
		}
		lines = append(lines, f.Problem.lines()...)
		if f.RetryAfter != nil {
			say("  the CA wants not to be asked before %s", stamp(*f.RetryAfter))
		}
	}
	if r := d.Renewal; r != nil && r.Start != nil && r.End != nil {
		why := ""
		if r.Explanation != "" {
			why = ", see " + printable.Line(r.Explanation)
		}
		say("the CA suggests to renew from %s to %s%s", stamp(*r.Start), stamp(*r.End), why)
	}
	if h := d.Hold; h != nil {
		say("held until %s: %s", stamp(h.Until), printable.Line(h.Reason))
	}
	if d.Pause != nil {
		say("%s", d.Pause)
	}
	return lines
}

// lines are what the CA says of the whole order and of each name.
func (p *problemDetail) lines() []string {
	if p == nil {
		return nil
	}
	line := "  the CA: "
	if p.Identifier != "" {
		line += p.Identifier + ": "
	}
	said := p.Detail
	if said == "" {
		said = p.Title
	}
	line += said
	if p.Type != "" {
		line += " (" + p.Type + ")"
	}
	if p.Instance != "" {
		line += ", see " + p.Instance
	}
	all := []string{"  " + printable.Line(strings.TrimSpace(line))}
	for i := range p.Subproblems {
		all = append(all, p.Subproblems[i].lines()...)
	}
	return all
}
