// SPDX-License-Identifier: Apache-2.0

package natsserver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/testprogram"
)

// host is where servers listen.
const host = "127.0.0.1"

// patience is how long a server may take to get into a state. Servers of a cluster
// wait some seconds before they choose a leader.
const patience = 2 * time.Minute

// Options say what the servers are like.
type Options struct {
	// SyncInterval is the setting sync_interval; "" is "always". "default" leaves it
	// out.
	SyncInterval string
	// Nodes is the number of servers in a cluster; 0 is 3.
	Nodes int
}

// A Server is a running server. It keeps nothing after the test.
type Server struct {
	// Name is the server's own.
	Name string
	// URL is where clients connect, Monitoring that of its HTTP port.
	URL, Monitoring string
	// Trust is who may do what.
	Trust *Trust

	program string
	config  string // file
	cmd     *exec.Cmd
	out     *bytes.Buffer // read when it has ended
	ended   <-chan struct{}
}

// Program returns the path of the program nats-server.
func Program(tb testing.TB) string {
	tb.Helper()
	const name = "nats-server"
	return filepath.Join(testprogram.Required(tb, "github.com/nats-io/nats-server/v2", name), name)
}

// Start returns a server that is no cluster's, answers, and ends with the test.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s := prepare(tb, "alone", newTrust(tb), o, "")
	s.run(tb)
	s.awaitHealth(tb)
	return s
}

// prepare writes what a server needs into a directory of the test. cluster is the
// part of the configuration about the other servers.
func prepare(tb testing.TB, name string, trust *Trust, o Options, cluster string) *Server {
	tb.Helper()
	dir := tb.TempDir()
	s := &Server{Name: name, Trust: trust, program: Program(tb), config: filepath.Join(dir, "nats-server.conf")}
	tb.Cleanup(func() {
		s.stop()
		if tb.Failed() && s.out != nil {
			tb.Logf("%s said:\n%s", s.Name, s.out.Bytes())
		}
	})
	listen, monitoring := freeAddress(tb), freeAddress(tb)
	s.URL, s.Monitoring = "nats://"+listen, "http://"+monitoring
	sync := cmp.Or(o.SyncInterval, "always")
	line := "sync_interval: " + sync
	if sync == "default" {
		line = ""
	}
	text := fmt.Sprintf(`server_name: %s
listen: "%s"
http: "%s"
max_control_line: 16KB
jetstream {
  store_dir: %q
  %s
}
include accounts.conf
%s`, name, listen, monitoring, filepath.Join(dir, "jetstream"), line, cluster)
	for file, text := range map[string][]byte{s.config: []byte(text), filepath.Join(dir, "accounts.conf"): trust.Config} {
		if err := durable.WriteFile(file, text, durable.PrivateFile); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// freeAddress returns one that nothing listens on.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	port, err := testprogram.FreePort(host)
	if err != nil {
		tb.Fatal(err)
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// run starts the process.
func (s *Server) run(tb testing.TB) {
	tb.Helper()
	s.out = new(bytes.Buffer)
	s.cmd = exec.Command(s.program, "--config", s.config)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	var err error
	if s.ended, err = testprogram.Start(s.cmd); err != nil {
		s.cmd = nil
		tb.Fatal(err)
	}
}

// stop kills the process and returns when it has ended.
func (s *Server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it has ended already, or ends now
	<-s.ended
}

// Kill ends the server by SIGKILL. What it has stored stays.
func (s *Server) Kill(testing.TB) { s.stop() }

// Restart starts a server that was killed, and returns when it is up to date again.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.run(tb)
	s.awaitHealth(tb)
}

// Hang has the server do nothing until it is continued. Its connections stay.
func (s *Server) Hang(tb testing.TB) { testprogram.Hang(tb, s.cmd) }

// Continue ends what Hang began.
func (s *Server) Continue(tb testing.TB) { testprogram.Continue(tb, s.cmd) }

// awaitHealth returns when the server says of itself that all of its streams are up
// to date.
func (s *Server) awaitHealth(tb testing.TB) {
	tb.Helper()
	s.await(tb, "healthy", func(ctx context.Context) (bool, error) {
		var health struct{ Status string }
		err := s.ask(ctx, "/healthz", nil, &health)
		return health.Status == "ok", err
	})
}

// await polls until there is what is said.
func (s *Server) await(tb testing.TB, what string, there func(context.Context) (bool, error)) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := there(ctx)
		if ok && err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.ended:
			tb.Fatalf("%s ended: %s", s.Name, s.out.Bytes())
		case <-ctx.Done():
			tb.Fatalf("%s does not become %s: %v", s.Name, what, err)
		}
	}
}

// client keeps no connection: tests look for what is left over.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ask asks the monitoring port.
func (s *Server) ask(ctx context.Context, path string, query url.Values, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Monitoring+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, resp.Status, err)
	}
	return nil
}

// URLs joins the addresses of servers.
func URLs(servers []*Server) string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = s.URL
	}
	return strings.Join(all, ",")
}
