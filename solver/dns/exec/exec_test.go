// SPDX-License-Identifier: Apache-2.0

package exec_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/exec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var record = dns.Record{Name: "_acme-challenge.www.example.test", Value: "$(touch x); 'v", Zone: "example.test"}

func script(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+strings.Join(lines, "\n")+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func provider(t *testing.T, c exec.Config) *exec.Provider {
	t.Helper()
	p, err := exec.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCall(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("A_SECRET_OF_THE_MANAGER", "secret")
	p := provider(t, exec.Config{
		Program:   script(t, `out=$1; shift`, `{ echo "$#|$1|$2|$3|$4"; env; } > "$out.$3"`),
		Arguments: []string{out, "--zone=x"},
	})
	for action, call := range map[string]func(context.Context, dns.Record) error{"present": p.Present, "cleanup": p.CleanUp} {
		if err := call(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		// The script's third argument is the name: "--zone=x", action, name, value.
		text, err := os.ReadFile(out + "._acme-challenge.www.example.test.")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if want := "4|--zone=x|" + action + "|_acme-challenge.www.example.test.|" + record.Value; lines[0] != want {
			t.Errorf("called with %s, want %s", lines[0], want)
		}
		for _, want := range []string{
			"KEYTURN_ACTION=" + action, "KEYTURN_FQDN=_acme-challenge.www.example.test.",
			"KEYTURN_VALUE=" + record.Value, "KEYTURN_ZONE=example.test", "PATH=" + os.Getenv("PATH"),
		} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: no %s in %q", action, want, lines)
			}
		}
		if strings.Contains(string(text), "A_SECRET") {
			t.Error("it sees the manager's environment")
		}
	}
}

func TestFailure(t *testing.T) {
	p := provider(t, exec.Config{Program: script(t, `head -c 100000 /dev/zero | tr '\0' x`, `echo the zone is locked >&2`, `exit 3`)})
	err := p.Present(t.Context(), record)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), `the zone is locked"`) || len(err.Error()) > 1500 {
		t.Fatalf("%d bytes: %v", len(err.Error()), err)
	}
	err = provider(t, exec.Config{Program: "/does/not/exist"}).Present(t.Context(), record)
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestTimeout holds that descendants end, too: the end of a pipe that one of them
// has open is reached.
func TestTimeout(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(pipe)
		ended <- err
	}()
	p := provider(t, exec.Config{Program: script(t, `sleep 600 >"$1" &`, `wait`), Arguments: []string{pipe}, Timeout: time.Second})
	if err := p.Present(t.Context(), record); err == nil || !strings.Contains(err.Error(), "ended after 1s") {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Present(ctx, record); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	for want, c := range map[string]exec.Config{
		"absolute": {Program: "script.sh"},
		"timeout":  {Program: "/bin/true", Timeout: -1},
	} {
		if _, err := exec.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
