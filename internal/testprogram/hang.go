// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"os/exec"
	"syscall"
	"testing"
)

// Hang has a program that was started do nothing until Continue. What it has open
// stays open.
func Hang(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	signal(tb, cmd, syscall.SIGSTOP)
}

// Continue ends what Hang began.
func Continue(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	signal(tb, cmd, syscall.SIGCONT)
}

func signal(tb testing.TB, cmd *exec.Cmd, s syscall.Signal) {
	tb.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		tb.Fatal(err)
	}
}
