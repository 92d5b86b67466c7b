// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"os"

	"golang.org/x/sys/unix"
)

// share lets processes of one user listen on one address (SO_REUSEPORT of socket(7)).
func share(fd int) error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// steer has the kernel give all new connections to the socket that came second, by a
// program of one instruction that returns its place. It counts from 0 in the order in which
// they began to listen; where there is no such place, with one socket that is alone again,
// the kernel chooses as if there were no program. Without this, half of the connections
// would go to the process that is about to end, and those that it has not accepted when it
// closes its socket would be reset.
func steer(fd int) error {
	second := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	program := &unix.SockFprog{Len: 1, Filter: &second[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, program))
}
