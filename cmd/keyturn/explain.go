// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

// explainedRow is a managed certificate, and when it is renewed, and why then.
type explainedRow struct {
	certRow
	Due   bool   `json:"due"`
	Cause string `json:"cause"`
	Why   string `json:"why"`
	// Asks is the issuer that the next generation is asked of.
	Asks   string        `json:"asks"`
	Window *windowDetail `json:"window,omitempty"`

	at time.Time // zero: not before somebody does something
}

// windowDetail is when a CA wants to be asked, and the page where it says why.
type windowDetail struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"explanation,omitempty"`
}

func explained(by *manager.Explainer, c *manager.Managed) explainedRow {
	e := by.Explain(c)
	r := explainedRow{certRow: rowOf(c), Due: e.Due, Cause: string(e.Cause), Why: printable.Line(e.Why), Asks: e.Issuer, at: e.At}
	if !e.Start.IsZero() {
		r.Window = &windowDetail{e.Start, e.End, e.URL}
	}
	return r
}

// due says whether it is, for people.
func (r explainedRow) due() string {
	if r.Due {
		return "yes"
	}
	return "no"
}

// why is the reason with the CA's page.
func (r explainedRow) why() string {
	if r.Window != nil && r.Window.Explanation != "" {
		return r.Why + ", see " + printable.Line(r.Window.Explanation)
	}
	return r.Why
}

// byTime puts first what is due longest, and last what is not due before somebody
// does something.
func byTime(list []explainedRow) {
	slices.SortStableFunc(list, func(a, b explainedRow) int {
		if a.at.IsZero() != b.at.IsZero() {
			if a.at.IsZero() {
				return 1
			}
			return -1
		}
		return a.at.Compare(b.at)
	})
}
