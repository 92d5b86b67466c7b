// SPDX-License-Identifier: Apache-2.0

package faultproxy_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that says back what it hears.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// ask sends something and returns whether it came back within a time.
func ask(c net.Conn, within time.Duration) error {
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// TestFaults looks at a connection that stood before, and at one that is made after the
// fault has ended.
func TestFaults(t *testing.T) {
	const soon, late = 100 * time.Millisecond, time.Minute
	silent := os.ErrDeadlineExceeded
	for _, c := range []struct {
		fault faultproxy.Fault
		// during is what a connection meets, and after how it goes on.
		during, after error
	}{
		{faultproxy.Refused, errBroken, errBroken},
		{faultproxy.Reset, errBroken, errBroken},
		{faultproxy.Held, silent, nil},
		{faultproxy.Lost, silent, silent},
		{faultproxy.Deaf, silent, silent},
		{faultproxy.Mute, silent, silent},
		{faultproxy.Slow, silent, nil},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			p := faultproxy.Start(t, echo(t))
			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := ask(conn, late); err != nil {
				t.Fatal(err)
			}
			if err := p.Set(c.fault); err != nil {
				t.Fatal(err)
			}
			if err := ask(conn, soon); !is(err, c.during) {
				t.Errorf("meanwhile: %v, not %v", err, c.during)
			}
			if err := p.Set(faultproxy.None); err != nil {
				t.Fatal(err)
			}
			within := late
			if c.after != nil {
				within = soon
			}
			if err := ask(conn, within); !is(err, c.after) {
				t.Errorf("afterwards: %v, not %v", err, c.after)
			}
			fresh, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer fresh.Close()
			if err := ask(fresh, late); err != nil {
				t.Errorf("a new connection: %v", err)
			}
		})
	}
}

// errBroken stands for whatever a broken connection says.
var errBroken = errors.New("broken")

func is(err, want error) bool {
	if want == errBroken {
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	return errors.Is(err, want)
}

// TestTorn has a connection end in the middle of what it carries.
func TestTorn(t *testing.T) {
	p := faultproxy.Start(t, echo(t))
	if err := p.Set(faultproxy.Torn); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = conn.Write(make([]byte, 1<<20)) }()
	n, err := io.Copy(io.Discard, conn)
	if err == nil || n >= 2000 {
		t.Errorf("%d bytes came back, and %v", n, err)
	}
}
