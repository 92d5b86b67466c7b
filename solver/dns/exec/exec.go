// SPDX-License-Identifier: Apache-2.0

// Package exec has a program of the operator's set records.
//
// The program is called as
//
//	PROGRAM [ARGUMENT...] present|cleanup FQDN VALUE
//
// without a shell. FQDN has a trailing dot. The same is in its environment as
// KEYTURN_ACTION, KEYTURN_FQDN and KEYTURN_VALUE, with KEYTURN_ZONE, the zone that
// the name is in if that is known. Of the manager's own environment it sees PATH
// and HOME alone. It succeeds with the exit status 0; what it says otherwise, its
// last 1024 bytes, is in the error.
package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/solver/dns"
)

const (
	defaultTimeout = time.Minute
	// killedTime is how long output of a killed program's descendants is waited for.
	killedTime = time.Second
	// maxOutput is how much of what a program said an error has, in bytes.
	maxOutput = 1024
)

// Config is which program to run.
type Config struct {
	Program   string        // an absolute path
	Arguments dns.Secrets   // that go before the action
	Timeout   time.Duration // of one call; 0 is a minute
}

// A Provider runs a program.
type Provider struct{ c Config }

var _ dns.Provider = (*Provider)(nil)

// Format prints the program, whatever the verb.
func (p *Provider) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.c.Program) }

// New returns a provider. It does not look whether the program is there.
func New(c Config) (*Provider, error) {
	if !filepath.IsAbs(c.Program) {
		return nil, fmt.Errorf("program is %.200q: it must be an absolute path, since the manager may be started in any directory", c.Program)
	}
	if c.Timeout < 0 {
		return nil, errors.New("timeout must not be negative")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	return &Provider{c}, nil
}

// Present runs the program with "present".
func (p *Provider) Present(ctx context.Context, r dns.Record) error {
	return p.run(ctx, "present", r)
}

// CleanUp runs the program with "cleanup".
func (p *Provider) CleanUp(ctx context.Context, r dns.Record) error {
	return p.run(ctx, "cleanup", r)
}

func (p *Provider) run(ctx context.Context, action string, r dns.Record) error {
	ctx, cancel := context.WithTimeout(ctx, p.c.Timeout)
	defer cancel()
	fqdn := r.Name + "."
	cmd := exec.CommandContext(ctx, p.c.Program, append(p.c.Arguments[:len(p.c.Arguments):len(p.c.Arguments)], action, fqdn, r.Value)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"KEYTURN_ACTION=" + action, "KEYTURN_FQDN=" + fqdn, "KEYTURN_VALUE=" + r.Value, "KEYTURN_ZONE=" + r.Zone,
	}
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	// What it started ends with it: the whole process group is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killedTime
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was ended after %v, the solver's timeout or what was left of the time", p.c.Timeout)
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return fmt.Errorf("running %s %s %s: %w%s", p.c.Program, action, fqdn, err, said.text())
}

// A tail keeps the last maxOutput bytes that are written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if more := len(t.b) - maxOutput; more > 0 {
		t.b = append(t.b[:0], t.b[more:]...)
	}
	return len(p), nil
}

func (t *tail) text() string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(t.b), ""))
	if s == "" {
		return ""
	}
	return fmt.Sprintf("; it said %q", s)
}
