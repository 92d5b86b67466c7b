// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/manager"
)

// serveVariable, in the environment, names a directory for a bus, and serveAtVariable an
// address: this program then only serves that bus, until its standard input ends.
const (
	serveVariable   = "KEYTURN_BENCH_SERVE"
	serveAtVariable = "KEYTURN_BENCH_SERVE_AT"
)

// A serving is what the clients of a server have to know.
type serving struct {
	URL    string
	Secret []byte // by which replicas' credentials are made
	Creds  []byte // of a manager
}

// serveHere starts a server in this process.
func serveHere(c embedded.Config) (s serving, stop func(), err error) {
	server, err := embedded.Start(c)
	if err != nil {
		return s, nil, err
	}
	s = serving{URL: server.URL(), Secret: server.Secret(manager.DefaultTenant)}
	if _, err = server.Create(context.Background(), manager.DefaultTenant, ""); err == nil {
		s.Creds, err = server.ManagerCreds(manager.DefaultTenant)
	}
	if err != nil {
		server.Shutdown()
		return s, nil, err
	}
	return s, server.Shutdown, nil
}

// serveApart starts a server in a process of its own, as a bus under thousands of
// replicas has it.
func serveApart(c embedded.Config, stderr io.Writer) (s serving, stop func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return s, nil, err
	}
	child := exec.Command(program)
	child.Env = append(os.Environ(), serveVariable+"="+c.Dir, serveAtVariable+"="+c.Listen)
	child.Stderr = stderr
	in, err := child.StdinPipe()
	if err != nil {
		return s, nil, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return s, nil, err
	}
	if err := child.Start(); err != nil {
		return s, nil, err
	}
	stop = func() {
		_ = in.Close()
		_ = child.Wait() // it has said on standard error what it had to say
	}
	if err := json.NewDecoder(out).Decode(&s); err != nil {
		stop()
		return s, nil, fmt.Errorf("starting a server in a process of its own: %w", err)
	}
	return s, stop, nil
}

// serveOn serves a bus, says how it is reached, and ends with the standard input.
func serveOn(dir, addr string) error {
	s, stop, err := serveHere(embedded.Config{Dir: dir, Listen: addr, Logger: quiet()})
	if err != nil {
		return err
	}
	defer stop()
	err = json.NewEncoder(os.Stdout).Encode(s)
	_, ended := io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, ended)
}
