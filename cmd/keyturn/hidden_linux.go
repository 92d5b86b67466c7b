// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// prSetDumpable is PR_SET_DUMPABLE of prctl(2).
const prSetDumpable = 4

// hideMemory keeps the keys in this process's memory from core dumps, and from
// other processes of the same user. It does what it can: no error is worth
// stopping for.
func hideMemory() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
}
