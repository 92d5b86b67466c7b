// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"os/exec"
	"runtime"
)

// Start starts a program that on Linux ends when the test process is killed. The
// channel is closed when it has ended; its output says why.
func Start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	endWithParent(cmd)
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The kernel goes by the thread that started it, and others do end before the
		// process: those that entered a network namespace.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the channel says that it ended
		}
	}()
	return done, <-started
}
