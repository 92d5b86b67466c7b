// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the program end when the thread that starts it does.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
