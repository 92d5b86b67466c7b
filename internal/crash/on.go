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
// name, or the name and how often it was passed, as in "manager/claimed:3". With
// KEYTURN_CRASH_PASSED, the names of the points that are passed are added to that
// file, one a line.
func Point(name string) {
	if file := os.Getenv("KEYTURN_CRASH_PASSED"); file != "" {
		note(file, name)
	}
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

func note(file, name string) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.WriteString(name + "\n"); err != nil {
		panic(err)
	}
}
