// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/manager"
)

const (
	sigint  = syscall.SIGINT
	sigterm = syscall.SIGTERM
)

// patience is how long a test waits for what has to come: no measure of speed,
// only so long that whoever waits in vain gets to know it. What comes may have to
// wait until the claim of a manager that was killed lapses.
const patience = manager.ClaimLapse + 2*time.Minute

var (
	root          string // of the repository
	keyturn       string // the programs
	exampleServer string
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if flag.Lookup("test.list").Value.String() != "" {
		return m.Run() // nothing is run
	}
	dir, err := os.MkdirTemp("", "keyturn-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the programs, with the race detector if the tests have it.
func build(dir string) (err error) {
	if root, err = filepath.Abs(".."); err != nil {
		return err
	}
	keyturn, exampleServer = filepath.Join(dir, "keyturn"), filepath.Join(dir, "server")
	args := []string{"build", "-buildvcs=false", "-o", dir + string(filepath.Separator)}
	if race.Enabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/keyturn", "./examples/server")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// eventually waits until check returns nil, and fails the test with its last
// error if it never does.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := poll(check); err != nil {
		t.Fatalf("%s: after %v: %v", what, patience, err)
	}
}

func poll(check func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// need returns the path of a program that the machine has to have.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		hint := program + " is not installed; run: apt-get install " + program
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	return path
}

// lines cuts a text into its lines.
func lines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }
