// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A row is one line of the table.
type row struct {
	Work      string  `json:"work"`
	Contender string  `json:"contender"`
	Figure    spread  `json:"figure"`
	Unit      string  `json:"unit"`                  // of Figure: ns, bytes, failed, …
	Allocs    *uint64 `json:"allocations,omitempty"` // for one piece of work

	// Ratio is Figure to that of the contender Than in the same run. Than is empty
	// if there is none. Above is by how many nanoseconds, where that is the target.
	Ratio *spread `json:"ratio,omitempty"`
	Than  string  `json:"than,omitempty"`
	Above *spread `json:"above,omitempty"`

	Target string `json:"target,omitempty"`
	Met    *bool  `json:"met,omitempty"` // nil if there is no Target
}

// aim sets a target and whether it is met.
func (r *row) aim(target string, met bool) {
	r.Target, r.Met = target, &met
}

func printTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORK\tCONTENDER\tMEDIAN\tSPREAD\tALLOCS\tRATIO\tTARGET\tMET")
	previous := ""
	for _, r := range rows {
		work := r.Work
		if work == previous {
			work = ""
		}
		previous = r.Work
		fields := []string{work, r.Contender, figure(r.Figure.Median, r.Unit), between(r.Figure, r.Unit), "", "", r.Target, ""}
		if r.Allocs != nil {
			fields[4] = strconv.FormatUint(*r.Allocs, 10)
		}
		if r.Ratio != nil {
			fields[5] = number(r.Ratio.Median) + " × " + r.Than
			if r.Above != nil {
				fields[5] += fmt.Sprintf(", %+.1f ns", r.Above.Median)
			}
		}
		if r.Met != nil {
			fields[7] = map[bool]string{true: "yes", false: "NO"}[*r.Met]
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(fields, "\t"), "\t"))
	}
	return t.Flush()
}

func printJSON(w io.Writer, rows []row) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(rows)
}

// figure is a value for readers: nanoseconds become micro- and milliseconds.
func figure(v float64, unit string) string {
	switch {
	case unit != "ns":
		return thousands(int(v+0.5)) + " " + unit
	case v >= 1e6:
		return number(v/1e6) + " ms"
	case v >= 1e3:
		return number(v/1e3) + " µs"
	}
	return number(v) + " ns"
}

func between(s spread, unit string) string {
	if s.Low == s.High {
		return ""
	}
	return figure(s.Low, unit) + " – " + figure(s.High, unit)
}

// number has three digits that say something, or two after the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return thousands(int(v + 0.5))
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
