// SPDX-License-Identifier: Apache-2.0

//go:build unix

package reload

import (
	"os"
	"syscall"
)

// openFlags make opening a FIFO return at once (POSIX, open).
const openFlags = syscall.O_NONBLOCK

// hasModes says whether the permission bits of a file mean anything.
const hasModes = true

var reloadSignals = []os.Signal{syscall.SIGHUP}
