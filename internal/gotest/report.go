// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of "go test -json": see "go doc test2json" and "go help
// buildjson".
type event struct {
	Action      string
	Package     string
	Test        string // empty for the package itself
	Elapsed     float64
	Output      string
	ImportPath  string // of a build, instead of Package
	FailedBuild string // of a package's fail: the ImportPath whose build failed
}

// test names a test, or with an empty name a package.
type test struct{ pkg, name string }

// A report reads events and prints as they come what a reader wants to see.
type report struct {
	w                       io.Writer
	passed, failed, skipped int
	output                  map[test][]string   // until it is known what became of the test
	builds                  map[string][]string // output of builds, by ImportPath
	failures                map[string]int      // failed tests, by package
}

func newReport(w io.Writer) *report {
	return &report{
		w: w, output: make(map[test][]string),
		builds: make(map[string][]string), failures: make(map[string]int),
	}
}

func (r *report) read(d *json.Decoder) error {
	for {
		var e event
		err := d.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.add(e)
	}
}

func (r *report) add(e event) {
	id := test{e.Package, e.Test}
	switch {
	case e.Action == "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case e.Action == "output":
		r.output[id] = append(r.output[id], e.Output)
	case e.Test == "":
		r.pkg(e)
	case e.Action == "pass":
		r.passed++
		delete(r.output, id)
	case e.Action == "fail":
		r.failed++
		r.failures[e.Package]++
		r.print(id)
	case e.Action == "skip":
		r.skipped++
		fmt.Fprintf(r.w, "SKIP\t%s %s: %s\n", e.Package, e.Test, reason(r.output[id]))
		delete(r.output, id)
	}
}

// pkg ends a package.
func (r *report) pkg(e event) {
	if e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
		return // it starts
	}
	if e.Action == "fail" {
		for _, line := range r.builds[e.FailedBuild] {
			fmt.Fprint(r.w, line)
		}
		delete(r.builds, e.FailedBuild)
		// Tests that never ended, by a panic or a timeout, say what they did.
		var open []test
		for id := range r.output {
			if id.pkg == e.Package && id.name != "" {
				open = append(open, id)
			}
		}
		slices.SortFunc(open, func(a, b test) int { return strings.Compare(a.name, b.name) })
		for _, id := range open {
			r.print(id)
		}
		if r.failures[e.Package] == 0 {
			r.failed++ // the package itself: its build, its TestMain, a timeout
		}
	}
	id := test{pkg: e.Package}
	for _, line := range r.output[id] {
		// "PASS" says nothing that the line after it does not.
		if line != "PASS\n" {
			fmt.Fprint(r.w, line)
		}
	}
	delete(r.output, id)
}

// print prints what a test said, without the lines that only tell that it ran.
func (r *report) print(id test) {
	for _, line := range r.output[id] {
		switch {
		case strings.HasPrefix(line, "=== RUN"), strings.HasPrefix(line, "=== PAUSE"),
			strings.HasPrefix(line, "=== CONT"), strings.HasPrefix(line, "=== NAME"):
		default:
			fmt.Fprint(r.w, line)
		}
	}
	delete(r.output, id)
}

// reason finds why a test was skipped: the last line that it printed itself.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}

// end prints the sums and reports whether the run is good.
func (r *report) end(ci bool) bool {
	if ci && r.skipped > 0 {
		fmt.Fprintf(r.w, "%d skipped, which fails the run where CI is true: install what is missing\n", r.skipped)
		r.failed += r.skipped
		r.skipped = 0
	}
	fmt.Fprintf(r.w, "%d passed, %d failed", r.passed, r.failed)
	if r.skipped > 0 {
		fmt.Fprintf(r.w, ", %d skipped", r.skipped)
	}
	fmt.Fprintln(r.w)
	return r.failed == 0
}
