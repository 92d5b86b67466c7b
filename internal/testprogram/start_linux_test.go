// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// TestStart has the thread end that calls Start.
func TestStart(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := startAndEnd(t, cmd)
	if _, err := io.WriteString(in, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// startAndEnd starts a program in a thread of its own, and returns when that has
// ended.
func startAndEnd(t *testing.T, cmd *exec.Cmd) (ended <-chan struct{}) {
	t.Helper()
	thread := make(chan int)
	var err error
	for {
		go func() {
			runtime.LockOSThread() // for ever: the thread ends with the goroutine
			if syscall.Gettid() != os.Getpid() {
				ended, err = Start(cmd)
			}
			thread <- syscall.Gettid()
		}()
		tid := <-thread
		if tid == os.Getpid() {
			continue // the first thread does not end, and is not used again
		}
		if err != nil {
			t.Fatal(err)
		}
		task := fmt.Sprintf("/proc/self/task/%d", tid)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(task); errors.Is(err, fs.ErrNotExist) {
				return ended
			}
			if time.Now().After(deadline) {
				t.Fatal("the thread does not end")
			}
		}
	}
}

// TestStartFails has no program to start.
func TestStartFails(t *testing.T) {
	ended, err := Start(exec.Command("/nothing/there"))
	if err == nil {
		t.Fatal("a program that is not there")
	}
	<-ended
}
