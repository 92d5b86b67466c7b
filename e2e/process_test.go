// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/race"
)

// A sandbox is a user with an empty state directory, who starts programs.
type sandbox struct {
	t     *testing.T
	state string // XDG_STATE_HOME
	data  string // the data directory of his dev instance
	env   []string
	// wrap says how a program is started, where that is not directly.
	wrap func(program string, args []string) (string, []string)

	mu        sync.Mutex
	processes []*process // guarded by mu; all that were ever started
}

func newSandbox(t *testing.T) *sandbox {
	state := t.TempDir()
	s := &sandbox{t: t, state: state, data: filepath.Join(state, "keyturn-dev")}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch prefix, _, _ := strings.Cut(name, "_"); prefix {
		case "KEYTURN", "NATS", "VAULT", "AWS", "NOTIFY", "XDG", "GORACE":
		default:
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "XDG_STATE_HOME="+state)
	if race.Enabled {
		// Without it each process sleeps for a second before it exits.
		s.env = append(s.env, "GORACE=atexit_sleep_ms=0")
	}
	return s
}

// An output is a stream of a process, which may be read while it grows.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// A process is a program that runs, or has run, in a process group of its own.
type process struct {
	cmd      *exec.Cmd
	name     string // the program
	args     []string
	out, err output
	done     chan struct{} // closed when it has ended
	// code is its exit code, -1 after a signal. It is set when done is closed.
	code int
}

func (p *process) String() string {
	return fmt.Sprintf("%s %s", filepath.Base(p.name), strings.Join(p.args, " "))
}

// start starts a program. It ends with the test at the latest.
func (s *sandbox) start(program string, args ...string) *process {
	s.t.Helper()
	p := &process{done: make(chan struct{}), name: program, args: args}
	if s.wrap != nil {
		program, args = s.wrap(program, args)
	}
	p.cmd = exec.Command(program, args...)
	// Where the programs say what to do next, they say it for the repository's root.
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = root, s.env, &p.out, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Where children have the streams still when the process is gone.
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		s.t.Fatalf("starting %s: %v", program, err)
	}
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the code tells
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	s.t.Cleanup(func() { s.end(p) })
	return p
}

// end kills what is left of a process and looks at how it was.
func (s *sandbox) end(p *process) {
	if !p.ended() {
		// The group's leader is not waited for yet, so that its number is still its own.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(p.err.String(), bad) {
			s.t.Errorf("%s: %s:\n%s", p, bad, tail(p.err.String()))
			return
		}
	}
	if s.t.Failed() && p.name == keyturn && len(p.args) > 0 && p.args[0] == "serve" {
		s.t.Logf("%s: exit code %d\n%s\n%s", p, p.code, tail(p.out.String()), tail(p.err.String()))
	}
}

// tail is the end of a text.
func tail(text string) string {
	const most = 8 << 10
	if cut := len(text) - most; cut > 0 {
		return "…" + text[cut:]
	}
	return text
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits for the end and returns the exit code.
func (p *process) wait() (int, error) {
	select {
	case <-p.done:
		return p.code, nil
	case <-time.After(patience):
		return 0, fmt.Errorf("%s: it still runs after %v", p, patience)
	}
}

// signal sends a signal to the process, and none to its children.
func (p *process) signal(sig syscall.Signal) error {
	if p.ended() {
		return fmt.Errorf("%s: it ended by itself with code %d\n%s", p, p.code, tail(p.err.String()))
	}
	return p.cmd.Process.Signal(sig)
}

// stop sends a signal and waits for a clean end.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.signal(sig); err != nil {
		t.Fatal(err)
	}
	code, err := p.wait()
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Fatalf("%s: exit code %d after %v\n%s", p, code, sig, tail(p.err.String()))
	}
}

// kill ends the process as a power cut would, for the process.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.wait(); err != nil {
		t.Fatal(err)
	}
}

// command runs a program to its end.
func (s *sandbox) command(program string, args ...string) (*process, error) {
	p := s.start(program, args...)
	_, err := p.wait()
	return p, err
}

// keyturn runs keyturn to its end, which has to be a success, and returns its
// standard output.
func (s *sandbox) keyturn(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// try is keyturn for any goroutine, and for what may fail.
func (s *sandbox) try(args ...string) (string, error) {
	p, err := s.command(keyturn, args...)
	if err == nil && p.code != 0 {
		err = &exitError{p}
	}
	return p.out.String(), err
}

// An exitError is an exit code that is not 0.
type exitError struct{ *process }

func (e *exitError) Error() string {
	return fmt.Sprintf("%s: exit code %d\n%s", e.process, e.code, tail(e.err.String()))
}

// anyFailure is for an exit code that may be 1 or 2.
const anyFailure = -1

// refused runs keyturn, which has to fail with a code and in words.
func (s *sandbox) refused(code int, words []string, args ...string) {
	s.t.Helper()
	_, err := s.try(args...)
	var exit *exitError
	if !errors.As(err, &exit) {
		s.t.Errorf("keyturn %s: %v; want a refusal", strings.Join(args, " "), err)
		return
	}
	if exit.code != code && (code != anyFailure || exit.code != 1 && exit.code != 2) {
		s.t.Errorf("%v; want another exit code (%d)", err, code)
	}
	for _, w := range words {
		if !strings.Contains(exit.err.String(), w) {
			s.t.Errorf("%v; want %q in it", err, w)
		}
	}
}
