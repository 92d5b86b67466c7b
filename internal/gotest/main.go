// SPDX-License-Identifier: Apache-2.0

// Gotest runs "go test" with the given arguments and prints what a reader of a
// long run wants to see: a line for each package, the output of what failed, why
// something was skipped, and at the end how many passed and failed.
//
//	go run ./internal/gotest -race ./...
//
// Where the variable CI is "true", a test that was skipped fails the run: there
// everything that the tests need is to be installed. A test that has nothing to
// do, because of what it is about and not of what is installed, does not skip.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.Getenv("CI") == "true"))
}

// run returns the exit code: 0 if everything passed, 1 if not, 2 if the tests
// could not be run.
func run(args []string, stdout, stderr io.Writer, ci bool) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		fmt.Fprintln(stderr, "gotest:", err)
		return 2
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(stderr, "gotest:", err)
		return 2
	}
	r := newReport(stdout)
	err = r.read(json.NewDecoder(out))
	if err != nil {
		fmt.Fprintln(stderr, "gotest: reading the output of go test:", err)
		_, _ = io.Copy(io.Discard, out) // so that go test can end
	}
	err = errors.Join(err, cmd.Wait())
	ok := r.end(ci)
	if err != nil || !ok {
		return 1
	}
	return 0
}
