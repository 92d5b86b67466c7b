// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Variables of the process that a scenario runs in.
const (
	scenarioVariable = "KEYTURN_KILLED_SCENARIO"
	dirVariable      = "KEYTURN_KILLED_DIR"
	tenantVariable   = "KEYTURN_KILLED_TENANT"
	seedVariable     = "KEYTURN_KILLED_SEED"
	busVariable      = "KEYTURN_KILLED_BUS" // the process is the bus, on that directory
)

// patience is how long a scenario may take: no measure of speed, only so long that
// whoever waits in vain gets to know it.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	err := error(nil)
	switch name, dir := os.Getenv(scenarioVariable), os.Getenv(busVariable); {
	case name != "":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err = play(ctx, name)
		cancel()
	case dir != "":
		err = runBus(context.Background(), dir, os.Getenv(dirVariable))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// build builds this package's tests with the points in them. Races are looked for
// elsewhere.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "killed.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "crashpoints", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return program
}
