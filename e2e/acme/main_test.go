// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/race"
)

// patience is how long a test waits for what has to come: no measure of speed, only so
// long that whoever waits in vain gets to know it.
const patience = 4 * time.Minute

// The programs.
var (
	keyturn       string
	exampleServer string
	plainServer   string // exampleServer without the race detector, to look at its memory
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == hookCommand {
		os.Exit(hook(os.Args[2:]))
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if flag.Lookup("test.list").Value.String() != "" {
		return m.Run() // nothing is run
	}
	dir, err := os.MkdirTemp("", "keyturn-e2e-acme-")
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
func build(dir string) error {
	keyturn, exampleServer = filepath.Join(dir, "keyturn"), filepath.Join(dir, "server")
	plainServer = exampleServer
	if !race.Enabled {
		return goBuild(dir, "../../cmd/keyturn", "../../examples/server")
	}
	if err := goBuild(dir, "-race", "../../cmd/keyturn", "../../examples/server"); err != nil {
		return err
	}
	plainServer = filepath.Join(dir, "plain", "server")
	if err := os.Mkdir(filepath.Dir(plainServer), 0o700); err != nil {
		return err
	}
	return goBuild(filepath.Dir(plainServer), "../../examples/server")
}

func goBuild(dir string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-o", dir + string(filepath.Separator)}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// eventually waits until check returns nil, and fails the test with its last error if it
// never does.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: after %v: %v", what, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
