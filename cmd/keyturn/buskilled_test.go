// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/natsserver"
	"github.com/keyturn/keyturn/internal/race"
)

// kills is how often each test of this file begins anew.
var kills = flag.Int("kills", 0, "rounds of commands that are killed; 0 is 3, or 60 where KEYTURN_SOAK is set, or 1 with the race detector")

func killRounds() int {
	switch {
	case *kills > 0:
		return *kills
	case os.Getenv("KEYTURN_SOAK") != "":
		return 60
	case race.Enabled:
		return 1
	}
	return 3
}

// A stillDir is a data directory whose manager does not run.
type stillDir struct {
	t    *testing.T
	data string
	// older is a copy of the bus from before the second half was made, and file an
	// export of what it had in the end.
	older, file string
	entries     map[string][sha256.Size]byte // of the export, but the epoch
	managed     string
}

const someConfig = "default_issuer: internal\nissuers: {internal: {type: local}}\n"

// newStillDir makes one that has some certificates, of two groups, renewed and removed
// ones among them.
func newStillDir(t *testing.T) *stillDir {
	t.Helper()
	dir := t.TempDir()
	s := &stillDir{t: t, data: filepath.Join(dir, "data"), older: filepath.Join(dir, "older"), file: filepath.Join(dir, "keyturn.log")}
	stop := s.serve()
	s.sh("printf '" + someConfig + "' | keyturn conf update; keyturn group mk web; for i in 1 2 3 4 5 6 7 8; do keyturn cert mk a$i.example --subdomain; done")
	stop()
	s.sh("cp -R data/bus older")
	stop = s.serve()
	s.sh("for i in 1 2 3 4 5 6 7 8; do keyturn cert mk b$i.example --subdomain --group web; done; keyturn cert renew --group default; keyturn cert rm $(keyturn cert mk c.example --subdomain)")
	s.managed = s.list()
	stop()
	s.keyturn("bus", "export", s.file)
	s.entries = s.read(s.file)
	return s
}

// serve starts the manager, and returns what stops it.
func (s *stillDir) serve() (stop func()) {
	s.t.Helper()
	p := exec.Command("keyturn", "serve", "--data", s.data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--log-level", "error")
	var said strings.Builder
	p.Stderr = &said
	if err := p.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	ended := false
	stop = func() {
		s.t.Helper()
		if ended {
			return
		}
		ended = true
		_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-done; err != nil {
			s.t.Errorf("keyturn serve: %v\n%s", err, said.String())
		}
	}
	s.t.Cleanup(stop)
	for deadline := time.Now().Add(patience); exec.Command("keyturn", "cert", "ls", "--data", s.data).Run() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("keyturn serve does not answer: %s", said.String())
		}
	}
	return stop
}

// sh runs commands beside the data directory, all of which have to succeed.
func (s *stillDir) sh(script string) {
	s.t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir, cmd.Env = filepath.Dir(s.data), append(os.Environ(), "KEYTURN_DATA="+s.data)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// keyturn runs a command on the data directory, which has to succeed.
func (s *stillDir) keyturn(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("keyturn", append(args, "--data", s.data)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("keyturn %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

var (
	identity = regexp.MustCompile(`"(id|serial|generation|epoch)": .*`)
	serials  = regexp.MustCompile(`"serial": "[^"]+"`)
)

// list is what is managed.
func (s *stillDir) list() string {
	s.t.Helper()
	return strings.Join(identity.FindAllString(s.keyturn("cert", "ls", "--output", "json"), -1), "\n")
}

// read returns the entries of an archive, without what a start of serve or a
// restoration writes itself.
func (s *stillDir) read(file string) map[string][sha256.Size]byte {
	s.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	in, err := archive.NewReader(f)
	if err != nil {
		s.t.Fatal(err)
	}
	all := make(map[string][sha256.Size]byte)
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			delete(all, event.LogInfoKey)
			return all
		}
		if err != nil {
			s.t.Fatal(err)
		}
		all[e.Key] = sha256.Sum256(e.Data)
	}
}

// again is a copy in another directory.
func (s *stillDir) again(t *testing.T) *stillDir {
	t.Helper()
	c := *s
	c.t, c.data = t, filepath.Join(t.TempDir(), "data")
	if out, err := exec.Command("cp", "-R", s.data, c.data).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &c
}

// killed runs a command that is killed at some moment, a few times, and then to its
// end. took is how long it takes.
func (s *stillDir) killed(r *rand.Rand, took time.Duration, args ...string) string {
	s.t.Helper()
	for range 1 + r.IntN(4) {
		p := exec.Command("keyturn", append(args, "--data", s.data)...)
		if err := p.Start(); err != nil {
			s.t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(r.Int64N(int64(took))), func() { _ = p.Process.Kill() }) // it may have ended
		_ = p.Wait()                                                                                  // killed, most of the time
		kill.Stop()
	}
	return s.keyturn(args...)
}

// whole checks that all is there that was, once and whatever is done again.
func (s *stillDir) whole() {
	s.t.Helper()
	file := filepath.Join(filepath.Dir(s.data), "after.log")
	s.keyturn("bus", "export", file)
	if got := s.read(file); !maps.Equal(got, s.entries) {
		s.t.Errorf("%d entries, and %d were there", len(got), len(s.entries))
		for key, sum := range s.entries {
			if got[key] != sum {
				s.t.Errorf("%s is missing, or another", key)
			}
		}
	}
	stop := s.serve()
	defer stop()
	if got := s.list(); got != s.managed {
		s.t.Errorf("what is managed:\n%s\nwant\n%s", got, s.managed)
	}
}

// TestRestoreKilled kills "bus restore" at whatever moments: done again it ends well, and
// nothing is lost.
func TestRestoreKilled(t *testing.T) {
	s := newStillDir(t)
	c := s.again(t)
	c.sh("rm -r data/bus")
	begun := time.Now()
	c.keyturn("bus", "restore")
	took := time.Since(begun)
	t.Logf("it takes %v", took)
	c.whole()
	for round := range killRounds() {
		r := rand.New(rand.NewPCG(1, uint64(round)))
		c := s.again(t)
		switch round % 3 {
		case 0:
			c.sh("rm -r data/bus")
		case 1:
			c.sh("rm -r data/bus/jetstream")
		case 2:
			c.sh("rm -r data/bus; cp -R " + s.older + " data/bus")
		}
		c.killed(r, took, "bus", "restore")
		if out := c.keyturn("bus", "restore"); !strings.Contains(out, "nothing is missing") {
			t.Errorf("round %d: once more: %s", round, out)
		}
		if left, err := filepath.Glob(filepath.Join(c.data, "snapshot", "salvaged-*")); err != nil || len(left) > 0 {
			t.Errorf("round %d: %v is left, %v", round, left, err)
		}
		c.whole()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// TestSalvageKilled kills "bus restore" where the bus went back to an older state and
// was worked on since, and the manager's snapshot is lost: what was made since is in
// the damaged bus alone, which is set aside, and what was made before in an export.
func TestSalvageKilled(t *testing.T) {
	s := newStillDir(t)
	s.sh("rm -r data/bus data/snapshot/*.kta; cp -R older data/bus")
	stop := s.serve()
	s.sh("keyturn cert mk since.example --subdomain --group web > id")
	id, err := os.ReadFile(filepath.Join(filepath.Dir(s.data), "id"))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	s.sh("rm data/snapshot/*.kta")
	for round := range killRounds() {
		r := rand.New(rand.NewPCG(3, uint64(round)))
		c := s.again(t)
		c.killed(r, time.Second, "bus", "restore", "--from", s.file)
		if out := c.keyturn("bus", "restore", "--from", s.file); !strings.Contains(out, "nothing is missing") {
			t.Errorf("round %d: once more: %s", round, out)
		}
		end := c.serve()
		got := c.list()
		for _, want := range append(serials.FindAllString(s.managed, -1), strings.TrimSpace(string(id))) {
			if !strings.Contains(got, want) {
				t.Errorf("round %d: %s is not there:\n%s", round, want, got)
			}
		}
		end()
		if t.Failed() {
			t.FailNow()
		}
	}
}

// TestImportKilled kills "bus import", which moves the log to a server of one's own.
func TestImportKilled(t *testing.T) {
	s := newStillDir(t)
	c := s.again(t)
	c.moveTo(natsserver.Start(t, natsserver.Options{}))
	begun := time.Now()
	c.keyturn("bus", "import", s.file)
	took := time.Since(begun)
	t.Logf("it takes %v", took)
	c.whole()
	for round := range killRounds() {
		r := rand.New(rand.NewPCG(2, uint64(round)))
		c := s.again(t)
		c.moveTo(natsserver.Start(t, natsserver.Options{}))
		c.killed(r, took, "bus", "import", s.file)
		if out := c.keyturn("bus", "import", s.file); !strings.Contains(out, ": 0 entries are written") {
			t.Errorf("round %d: once more: %s", round, out)
		}
		c.whole()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// moveTo has the directory's bus be an empty one, elsewhere.
func (s *stillDir) moveTo(server *natsserver.Server) {
	t := s.t
	t.Helper()
	admin, err := jetstream.Connect(jetstream.Options{URL: server.URL, Creds: server.Trust.Admin, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.Init(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s.sh("rm -r data/bus data/snapshot/bus.keys; cp " + server.Trust.Manager(t, "default") + " data/" + bus.ManagerCreds)
	for name, text := range map[string][]byte{bus.URLFile: []byte(server.URL + "\n"), "bus.secret": server.Trust.Secret} {
		if err := os.WriteFile(filepath.Join(s.data, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
