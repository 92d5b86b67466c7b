// SPDX-License-Identifier: Apache-2.0

package vaultserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/testprogram"
)

// patience is how long a server may take to get into a state.
const patience = 2 * time.Minute

// Names of what is built.
const (
	program = "vault"
	plugin  = "kubernetes"
)

// module is Vault's "minimal" build, and a plugin that it leaves out.
var module = testprogram.Module{Name: program, Packages: []string{".", "./" + plugin}, Tags: "minimal"}

// host is where servers listen, and the name that they have.
const host = "127.0.0.1"

// A Server is a running Vault, initialised, unsealed and with one unseal key. It
// keeps nothing after the test.
type Server struct {
	// Address is the URL of its API.
	Address string
	// Roots is the PEM file of what its certificate is known by.
	Roots string
	// RootToken may do everything.
	RootToken string

	programs  string // directory
	config    string // file
	unsealKey string
	client    *api.Client
	cmd       *exec.Cmd
	out       *bytes.Buffer // read when it has ended
	ended     <-chan struct{}
}

// Start returns a server that answers, and ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := prepare(tb, "first")
	s.run(tb)
	answer, err := s.client.Sys().InitWithContext(tb.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		tb.Fatal(err)
	}
	s.unsealKey, s.RootToken = answer.KeysB64[0], answer.RootToken
	s.client.SetToken(s.RootToken)
	s.Unseal(tb)
	return s
}

// Standby returns a second server of the cluster, which waits for the first to go
// and forwards requests to it meanwhile.
func (s *Server) Standby(tb testing.TB) *Server {
	tb.Helper()
	other := prepare(tb, "second")
	other.unsealKey, other.RootToken = s.unsealKey, s.RootToken
	other.client.SetToken(s.RootToken)
	other.run(tb)
	if _, err := other.client.Sys().RaftJoinWithContext(tb.Context(), &api.RaftJoinRequest{LeaderAPIAddr: s.Address, LeaderCACert: read(tb, s.Roots)}); err != nil {
		tb.Fatal(err)
	}
	other.unseal(tb)
	other.Await(tb, 429) // what a standby says of its health
	return other
}

// Program returns the path of the command "vault", which is the server, too.
func Program(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(module.Programs(tb), program)
}

// Plugin is the file of the auth method for Kubernetes, which lies in the plugin
// directory of the server.
func (s *Server) Plugin() string { return filepath.Join(s.programs, plugin) }

// Client is one that may do everything.
func (s *Server) Client() *api.Client { return s.client }

// Seal has the server forget the key of its storage.
func (s *Server) Seal(tb testing.TB) {
	tb.Helper()
	if err := s.client.Sys().SealWithContext(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	s.Await(tb, 503)
}

// Unseal gives the key, and returns when the server is the active one.
func (s *Server) Unseal(tb testing.TB) {
	tb.Helper()
	s.unseal(tb)
	s.Await(tb, 200)
}

func (s *Server) unseal(tb testing.TB) {
	tb.Helper()
	if _, err := s.client.Sys().UnsealWithContext(tb.Context(), s.unsealKey); err != nil {
		tb.Fatal(err)
	}
}

// Stop kills the server. What it has stored stays.
func (s *Server) Stop(testing.TB) { s.stop() }

// Restart starts a server that was stopped. It is sealed then.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.run(tb)
}

// Hang has the server answer nothing until it is continued.
func (s *Server) Hang(tb testing.TB) { testprogram.Hang(tb, s.cmd) }

// Continue ends what Hang began.
func (s *Server) Continue(tb testing.TB) { testprogram.Continue(tb, s.cmd) }

// prepare makes what a server needs in a directory of the test. node is its name in
// the cluster.
func prepare(tb testing.TB, node string) *Server {
	tb.Helper()
	s := &Server{programs: module.Programs(tb)}
	tb.Cleanup(func() {
		if s.cmd == nil {
			return
		}
		s.stop()
		if tb.Failed() {
			tb.Logf("%s said:\n%s", s.Address, s.out.Bytes())
		}
	})
	if err := s.configure(tb.TempDir(), node); err != nil {
		tb.Fatal(err)
	}
	return s
}

// configure writes the configuration of a server, and makes a client of it.
func (s *Server) configure(dir, node string) error {
	port, err := testprogram.FreePort(host)
	if err != nil {
		return err
	}
	clusterPort, err := testprogram.FreePort(host)
	if err != nil {
		return err
	}
	address, cluster := net.JoinHostPort(host, strconv.Itoa(port)), net.JoinHostPort(host, strconv.Itoa(clusterPort))
	s.Address, s.Roots = "https://"+address, filepath.Join(dir, "server.crt")
	key, storage := filepath.Join(dir, "server.key"), filepath.Join(dir, "storage")
	if err := writeCertificate(s.Roots, key); err != nil {
		return err
	}
	if err := durable.MkdirAll(storage); err != nil {
		return err
	}
	text, err := json.MarshalIndent(map[string]any{
		"disable_mlock":    true,
		"api_addr":         s.Address,
		"cluster_addr":     "https://" + cluster,
		"plugin_directory": s.programs,
		"storage":          map[string]any{"raft": map[string]any{"path": storage, "node_id": node, "performance_multiplier": "1"}},
		"listener": map[string]any{"tcp": map[string]any{
			"address": address, "cluster_address": cluster, "tls_cert_file": s.Roots, "tls_key_file": key,
		}},
	}, "", "\t")
	if err != nil {
		return err
	}
	s.config = filepath.Join(dir, "vault.json")
	if err := durable.WriteFile(s.config, text, durable.PrivateFile); err != nil {
		return err
	}
	return s.connect()
}

// connect makes the client, which asks this server whatever the environment says.
func (s *Server) connect() error {
	settings := api.DefaultConfig()
	if settings.Error != nil {
		return settings.Error
	}
	settings.Address, settings.AgentAddress, settings.MaxRetries = s.Address, "", 0
	if err := settings.ConfigureTLS(&api.TLSConfig{CACert: s.Roots}); err != nil {
		return err
	}
	var err error
	s.client, err = api.NewClient(settings)
	return err
}

// run starts the server, and returns when it answers.
func (s *Server) run(tb testing.TB) {
	tb.Helper()
	s.out = new(bytes.Buffer)
	s.cmd = exec.Command(filepath.Join(s.programs, program), "server", "-config", s.config, "-log-level", "info")
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	var err error
	if s.ended, err = testprogram.Start(s.cmd); err != nil {
		tb.Fatal(err)
	}
	s.Await(tb, 501, 503) // not initialised, or sealed
}

// stop kills the server and returns when it has ended.
func (s *Server) stop() {
	_ = s.cmd.Process.Kill() // it has ended already, or ends now
	<-s.ended
}

// Await returns when the server says one of these of its health (sys/health): 200 is
// active, 429 standby, 501 not initialised and 503 sealed.
func (s *Server) Await(tb testing.TB, statuses ...int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := s.health(ctx)
		for _, status := range statuses {
			if now == status {
				return
			}
		}
		select {
		case <-tick.C:
		case <-s.ended:
			tb.Fatalf("Vault ended: %s", s.out.Bytes())
		case <-ctx.Done():
			tb.Fatalf("Vault's health is %d (%v), not %d", now, err, statuses)
		}
	}
}

func (s *Server) health(ctx context.Context) (int, error) {
	resp, err := s.client.Logical().ReadRawWithContext(ctx, "sys/health")
	if resp != nil {
		defer resp.Body.Close()
		return resp.StatusCode, err
	}
	if err == nil {
		err = errors.New("no answer")
	}
	return 0, err
}

func read(tb testing.TB, file string) string {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}
