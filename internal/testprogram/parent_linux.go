// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"os/exec"
	"syscall"
)

// EndWithParent makes the program end when the test process is killed. The
// kernel goes by the thread that started it, which Go keeps while it is in use; a
// test process's ends only when the process does.
func EndWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
