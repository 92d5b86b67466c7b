// SPDX-License-Identifier: Apache-2.0

// Package testprogram has what packages share that install a program for tests,
// once for a user, and run it: a cache below the user's cache directory, filled by
// one process while the others wait, and what to do when a program cannot be had.
package testprogram

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
)

// CacheDir is where everything is installed: "keyturn-test" in the user's cache
// directory.
func CacheDir() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "keyturn-test")
	return dir, durable.MkdirAll(dir)
}

// Once makes dir by calling fill with an empty directory beside it, unless it is
// there. Of several processes one does it, and the others wait.
func Once(ctx context.Context, dir string, fill func(ctx context.Context, dir string) error) error {
	there := func() bool {
		_, err := os.Stat(dir)
		return err == nil
	}
	if there() {
		return nil
	}
	lock, err := lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }() // the process's end releases it as well
	if there() {
		return nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil { // of one that was killed
		return err
	}
	if err := durable.MkdirAll(part); err != nil {
		return err
	}
	if err := fill(ctx, part); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return os.Rename(part, dir)
}

func lock(ctx context.Context, path string) (*durable.Lock, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := durable.TryLock(path)
		if !errors.Is(err, durable.ErrLocked) {
			return l, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("another process holds %s: %w", path, ctx.Err())
		}
	}
}

// Missing skips the test, as any that needs a program which is not there, but
// fails it in CI. The hint says how to get the program.
func Missing(t testing.TB, hint string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", hint, err)
	}
	t.Skipf("%s: %v", hint, err)
}

// Ports for programs are below those that the system gives out by itself: whoever
// connects, or listens on port 0, could take one of these before the program does.
const (
	firstPort = 20_000
	portRange = 12_000
)

// given has the ports that this process was given.
var given sync.Map

// FreePort returns a TCP port that nothing listens on, another one each time; host is
// the address that the program will listen on, "" for every one.
func FreePort(host string) (int, error) {
	var last error
	for range 100 {
		port := firstPort + rand.IntN(portRange)
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		_ = l.Close() // nothing was accepted
		if _, twice := given.LoadOrStore(port, true); !twice {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port is free on %q: %w", host, last)
}
