// SPDX-License-Identifier: Apache-2.0

//go:build crashpoints

package crash

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	mu     sync.Mutex
	passed = make(map[string]int) // guarded by mu
)

// Point is where a test may kill the process: SIGKILL, when KEYTURN_CRASH is its
// name, or the name and how often it was passed, as in "manager/claimed:3".
func Point(name string) {
	want, count, _ := strings.Cut(os.Getenv("KEYTURN_CRASH"), ":")
	if want != name {
		return
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		n = 1
	}
	mu.Lock()
	defer mu.Unlock()
	if passed[name]++; passed[name] != n {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
