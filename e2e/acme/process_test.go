// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/testprogram"
)

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

// tail is the end of what was said.
func (o *output) tail() string {
	const most = 8 << 10
	text := o.String()
	if cut := len(text) - most; cut > 0 {
		return "…" + text[cut:]
	}
	return text
}

// A process is a program that runs, or has run.
type process struct {
	cmd      *exec.Cmd
	out, err output
	done     <-chan struct{} // closed when it has ended
}

func (p *process) String() string {
	return fmt.Sprintf("%s %s", filepath.Base(p.cmd.Path), strings.Join(p.cmd.Args[1:], " "))
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// start starts a program in the environment of a user whose state is in a directory of
// its own. It ends with the test at the latest, and is looked at for races.
func start(t *testing.T, state, input, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...)}
	p.cmd.Env = environment(state)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(input), &p.out, &p.err
	p.cmd.WaitDelay = patience // of descendants that have the streams still
	var err error
	if p.done, err = testprogram.Start(p.cmd); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(p.err.String(), bad) {
				t.Errorf("%s: %s:\n%s", p, bad, p.err.tail())
			}
		}
		if t.Failed() && len(args) > 0 && args[0] == "serve" {
			t.Logf("%s: %s", p, p.err.tail())
		}
	})
	return p
}

// environment is that of the test without what tells the programs where to look.
func environment(state string) []string {
	env := []string{"XDG_STATE_HOME=" + state}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch prefix, _, _ := strings.Cut(name, "_"); prefix {
		case "KEYTURN", "NATS", "VAULT", "AWS", "NOTIFY", "XDG", "GORACE":
		default:
			env = append(env, v)
		}
	}
	// Without it each process that has the race detector sleeps for a second before it
	// exits.
	return append(env, "GORACE=atexit_sleep_ms=0")
}

// command runs keyturn to its end, which has to be a success, and returns its standard
// output.
func command(t *testing.T, state, input string, args ...string) string {
	t.Helper()
	p := start(t, state, input, keyturn, args...)
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("%s: exit code %d\n%s", p, code, p.err.tail())
	}
	return p.out.String()
}
