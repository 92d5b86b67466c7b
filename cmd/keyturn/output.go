// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// formatOf returns whether the output is JSON.
func formatOf(cmd *cobra.Command) (asJSON bool, err error) {
	switch f, _ := cmd.Flags().GetString("output"); f {
	case "table":
		return false, nil
	case "json":
		return true, nil
	default:
		return false, usagef("--output is %q: table and json are known", f)
	}
}

// printJSON prints one indented value.
func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printList prints JSON, or a table with a heading and a row for each.
func printList[T any](cmd *cobra.Command, list []T, heading []string, row func(T) []string) error {
	if asJSON, err := formatOf(cmd); err != nil || asJSON {
		if list == nil {
			list = []T{}
		}
		return printJSON(cmd, list)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(heading, "\t"))
	for _, v := range list {
		fmt.Fprintln(w, strings.Join(row(v), "\t"))
	}
	return w.Flush()
}

// stamp prints a time in UTC to the second; "-" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// A progress tells what is going on when that takes longer than a second, or at
// once where somebody watches.
type progress struct {
	w     io.Writer
	timer *time.Timer
	last  string // guarded by saying; not yet printed
	now   bool   // guarded by saying
	ended bool   // guarded by saying
}

// saying is held while a line is printed: a command may have several progresses.
var saying sync.Mutex

// newProgress prints to the command's standard error.
func newProgress(cmd *cobra.Command) *progress {
	p := &progress{w: cmd.ErrOrStderr(), now: isTerminal(cmd.ErrOrStderr())}
	p.timer = time.AfterFunc(time.Second, func() {
		saying.Lock()
		defer saying.Unlock()
		p.now = true
		if p.last != "" && !p.ended {
			fmt.Fprintln(p.w, p.last)
		}
		p.last = ""
	})
	return p
}

func (p *progress) say(id, what string) {
	saying.Lock()
	defer saying.Unlock()
	p.last = id + ": " + what
	if p.now && !p.ended {
		fmt.Fprintln(p.w, p.last)
		p.last = ""
	}
}

// end returns when nothing is being printed any more that was not said before.
func (p *progress) end() {
	p.timer.Stop()
	saying.Lock()
	defer saying.Unlock()
	p.ended = true
}

// isTerminal reports whether a stream is a person's.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
