// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/bus"
)

// appends is a bus that counts what was written, by key.
type appends struct {
	bus.Log
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (l *appends) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	at, err := l.Log.Append(ctx, key, after, data)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.n[key]++
	}
	return at, err
}

func (l *appends) count(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n[key]
}

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }
