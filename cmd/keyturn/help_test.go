// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands returns a command and all below it.
func commands(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, commands(sub)...)
	}
	return all
}

// line runs a command line that ends at once.
func line(t *testing.T, args ...string) (code int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// TestHelp asks every command for help: it says what the command does, and
// what each flag is for.
func TestHelp(t *testing.T) {
	for _, c := range commands(newRoot()) {
		path := strings.Fields(c.CommandPath())[1:]
		code, out, errOut := line(t, append(path, "--help")...)
		if code != 0 || errOut != "" || !strings.Contains(out, "Usage:\n") {
			t.Errorf("%s --help: exit code %d, %q, %q", c.CommandPath(), code, out, errOut)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || !strings.Contains(out, cmp.Or(c.Long, c.Short)) {
			t.Errorf("%s: short help %q, and %q", c.CommandPath(), c.Short, out)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no help", c.CommandPath(), f.Name)
			}
		})
	}
}

// TestUsage gives every command what it cannot know.
func TestUsage(t *testing.T) {
	for _, c := range commands(newRoot()) {
		path := strings.Fields(c.CommandPath())[1:]
		code, out, errOut := line(t, append(path, "--no-such-flag")...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, "unknown flag: --no-such-flag\nRun '"+c.CommandPath()+" --help' for usage.\n") {
			t.Errorf("%s --no-such-flag: exit code %d, %q, %q", c.CommandPath(), code, out, errOut)
		}
	}
}

// TestProgress looks at what is shown of work that takes its time: nothing in
// the first second, then the latest, then everything.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errOut bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetErr(&errOut)
		p := newProgress(cmd)
		p.say("ID", "one")
		p.say("ID", "two")
		time.Sleep(999 * time.Millisecond)
		saying.Lock() // which the timer holds when it prints
		if errOut.Len() > 0 {
			t.Errorf("within a second: %q", errOut.String())
		}
		saying.Unlock()
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		p.say("ID", "three")
		p.say("ID", "four")
		p.end()
		if want := "ID: two\nID: three\nID: four\n"; errOut.String() != want {
			t.Errorf("%q, want %q", errOut.String(), want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var errOut bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetErr(&errOut)
		p := newProgress(cmd)
		p.say("ID", "one")
		p.end()
		time.Sleep(time.Minute)
		if errOut.Len() > 0 {
			t.Errorf("after the end: %q", errOut.String())
		}
	})
}
