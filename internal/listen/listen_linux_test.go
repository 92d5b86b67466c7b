// SPDX-License-Identifier: Apache-2.0

package listen_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/listen"
)

// TestShared has a second listener take a port over: what comes then comes to it alone, and
// to the first one again that is alone.
func TestShared(t *testing.T) {
	first, err := listen.Shared(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := first.Addr().String()
	for range 3 {
		next, err := listen.Shared(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			taken(t, address, next)
		}
		listen.Close(first)
		for range 50 {
			taken(t, address, next)
		}
		first = next
	}
	if l, err := listen.Port(t.Context(), address); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("%v, %v", l, err)
	}
	listen.Close(first, nil)
}

// taken makes a connection, which has to come to l.
func taken(t *testing.T, address string, l net.Listener) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatalf("the connection came to the other one: %v", err)
	}
	if _, err := io.WriteString(accepted, "x"); err != nil {
		t.Error(err)
	}
	if accepted.RemoteAddr().String() != c.LocalAddr().String() {
		t.Error("another connection was accepted")
	}
	_ = accepted.Close()
}

// TestBad has addresses that cannot be listened on.
func TestBad(t *testing.T) {
	for _, open := range []func(context.Context, string) (net.Listener, error){listen.Port, listen.Shared} {
		for _, address := range []string{"nonsense", "127.0.0.1:99999", "192.0.2.1:1"} {
			if l, err := open(t.Context(), address); err == nil || !strings.Contains(err.Error(), address) {
				t.Errorf("%s: %v, %v", address, l, err)
			}
		}
	}
}

// TestNotInherited has variables that are meant for another process.
func TestNotInherited(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	public, admin, err := listen.Inherited()
	if len(public) > 0 || admin != nil || err != nil {
		t.Errorf("%v, %v, %v", public, admin, err)
	}
}
