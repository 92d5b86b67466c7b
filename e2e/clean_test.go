// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/race"
)

// TestClean starts, stops and misuses the instance as people do.
func TestClean(t *testing.T) {
	t.Run("Signals", testSignals)
	t.Run("Refusals", testRefusals)
	t.Run("Kinds", testKinds)
	t.Run("Banner", testBanner)
}

// testSignals ends the instance in both ways, with a page open on it, and has the
// next one serve the same.
func testSignals(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h")
	serial, err := s.client(t, in.edge, "localhost").serial()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{sigint, sigterm} {
		ended := in.openPage(t)
		began := time.Now()
		in.stop(t, sig)
		t.Logf("%v: it ended after %v", sig, seconds(time.Since(began)))
		<-ended
		in = s.serve()
		if err := s.client(t, in.edge, "localhost").sees(serial); err != nil {
			t.Errorf("after %v and a start: %v", sig, err)
		}
	}
	in.stop(t, sigterm)
}

// openPage follows the page, as a browser does, until the instance ends.
func (in *instance) openPage(t *testing.T) (ended <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+in.web+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewScanner(resp.Body)
	events.Buffer(nil, 1<<20)
	if !events.Scan() {
		t.Fatalf("/events says nothing: %v", events.Err())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		defer resp.Body.Close()
		for events.Scan() {
		}
	}()
	return done
}

// testRefusals has the instance refuse what it cannot or must not do.
func testRefusals(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h")

	// The same directory.
	s.refused(1, []string{"in use", s.data, "--data", fmt.Sprint(in.cmd.Process.Pid)}, slices.Concat([]string{"serve", "--dev"}, anyPorts)...)
	if _, err := s.client(t, in.edge, "localhost").handshake(); err != nil {
		t.Errorf("after a second instance was refused: %v", err)
	}

	// A taken port.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	other := filepath.Join(t.TempDir(), "other")
	for _, flag := range []string{"--edge", "--http", "--nats"} {
		args := slices.Concat([]string{"serve", "--dev", "--data", other}, anyPorts, []string{flag, addr})
		s.refused(1, []string{addr, flag}, args...)
	}

	// An address that others can reach.
	for _, flag := range []string{"--edge", "--http", "--nats"} {
		for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.com:0"} {
			args := slices.Concat([]string{"serve", "--dev", "--data", other}, anyPorts, []string{flag, addr})
			s.refused(2, []string{addr, "loopback", flag}, args...)
		}
	}
	in.stop(t, sigterm)

	// What was refused can be used afterwards.
	again := s.serve("--data", other)
	again.stop(t, sigint)
}

// testKinds keeps development and production apart.
func testKinds(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.serve().stop(t, sigterm)
	plain := []string{"serve", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0"}
	s.refused(1, []string{s.data, "--dev"}, append(plain, "--data", s.data)...)

	production := filepath.Join(s.state, "keyturn") // the default
	p := s.start(keyturn, plain...)
	eventually(t, "keyturn serve", func() error {
		if p.ended() || !strings.Contains(p.err.String(), "keyturn serves") {
			return fmt.Errorf("it does not come up:\n%s", tail(p.err.String()))
		}
		return nil
	})
	p.stop(t, sigterm)
	before, err := os.ReadFile(filepath.Join(production, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.refused(1, []string{production, "production"}, slices.Concat([]string{"serve", "--dev"}, anyPorts, []string{"--data", production})...)
	after, err := os.ReadFile(filepath.Join(production, "identity.pem"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the identity has changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(production, "ca.pem")); err == nil {
		t.Error("a development CA was put into a production directory")
	}
}

// testBanner runs what the instance says can be run, as it stands there.
func testBanner(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		start func(s *sandbox) (*instance, error)
		want  int // lines to run
	}{
		{"Default", func(s *sandbox) (*instance, error) { return s.tryServe() }, 4},
		{"OtherDirectory", func(s *sandbox) (*instance, error) {
			s.data = filepath.Join(s.state, "it's a state; of things")
			return s.tryServe("--data", s.data)
		}, 4},
		{"Dollar", func(s *sandbox) (*instance, error) {
			s.data = filepath.Join(s.state, "a $HOME of its own")
			return s.tryServe("--data", s.data)
		}, 4},
		{"GoRun", func(s *sandbox) (*instance, error) {
			return s.instance(s.start("go", slices.Concat([]string{"run", "./cmd/keyturn", "serve", "--dev"}, anyPorts)...))
		}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			need(t, "curl")
			s := newSandbox(t)
			if race.Enabled {
				s.env = append(s.env, "GOFLAGS=-race") // what "go run" builds is built already, then
			}
			in, err := test.start(s)
			if err != nil {
				t.Fatal(err)
			}
			_, list, _ := strings.Cut(in.out.String(), "Try, in another terminal:\n\n")
			list, _, _ = strings.Cut(list, "\n\nCtrl-C")
			ran := 0
			for _, line := range lines(list) {
				ran++
				if strings.Contains(line, "./examples/server") {
					s.runExample(line)
					continue
				}
				p, err := s.command("sh", "-c", line)
				if err != nil {
					t.Fatal(err)
				}
				if p.code != 0 || p.out.String() == "" {
					t.Errorf("%q: exit code %d\n%s%s", line, p.code, p.out.String(), tail(p.err.String()))
				}
			}
			if ran != test.want {
				t.Errorf("%d lines to run, want %d:\n%s", ran, test.want, in.out.String())
			}
			if goRun := strings.Contains(list, "go run ./cmd/keyturn cert"); goRun != (test.name == "GoRun") {
				t.Errorf("the commands are not how the instance was started:\n%s", list)
			}
			// "go run" has the program as its child: Ctrl-C is for both.
			if err := syscall.Kill(-in.cmd.Process.Pid, sigint); err != nil {
				t.Fatal(err)
			}
			code, err := in.wait()
			if err != nil {
				t.Fatal(err)
			}
			// After Ctrl-C "go run" itself exits with 1, whatever its child does. It says
			// so on standard error if that fails.
			if goRun := test.name == "GoRun"; !goRun && code != 0 || goRun && strings.Contains(in.err.String(), "exit status") {
				t.Errorf("exit code %d after Ctrl-C\n%s", code, tail(in.err.String()))
			}
		})
	}
}

// runExample runs the line for examples/server, which has a port of its own.
func (s *sandbox) runExample(line string) {
	t := s.t
	t.Helper()
	const addr = "127.0.0.1:9443"
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("%q cannot be tried: %v", line, err)
	}
	l.Close()
	p := s.start("sh", "-c", line)
	c := s.client(t, addr, "localhost")
	eventually(t, line, func() error {
		if p.ended() {
			t.Fatalf("%q: exit code %d\n%s", line, p.code, tail(p.err.String()))
		}
		_, err := c.handshake()
		return err
	})
	if err := syscall.Kill(-p.cmd.Process.Pid, sigint); err != nil {
		t.Fatal(err)
	}
	if _, err := p.wait(); err != nil {
		t.Error(err)
	}
}
