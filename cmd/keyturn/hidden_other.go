// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "syscall"

// hideMemory keeps the keys in this process's memory from core dumps.
func hideMemory() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
