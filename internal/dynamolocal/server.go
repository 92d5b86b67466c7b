// SPDX-License-Identifier: Apache-2.0

package dynamolocal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// Region is the region that the emulator's tables are in.
const Region = "us-east-1"

// hint is how to get what a test machine without network has to have.
const hint = "DynamoDB Local cannot be had; run: apt-get install openjdk-17-jre-headless, and let go test reach the npm registry once"

// A Server is a running emulator. It listens on every interface, since it has no
// option for less; it takes any credentials, and holds nothing but what tests
// put there.
type Server struct {
	// Endpoint is its URL.
	Endpoint string

	port  int
	dir   string // of the database; "" is in memory
	cmd   *exec.Cmd
	out   bytes.Buffer // read when it has ended
	ended <-chan struct{}
}

var shared struct {
	sync.Mutex
	server *Server // guarded by the mutex
}

// Main runs the tests of a package with the environment that makes the AWS SDK
// reach nothing but the emulator, and ends the shared one afterwards.
func Main(m *testing.M) int {
	for _, kv := range Env() {
		if err := os.Setenv(kv[0], kv[1]); err != nil {
			fmt.Fprintln(os.Stderr, "dynamolocal:", err)
			return 2
		}
	}
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.stop()
	}
	return code
}

// Env returns the variables, as pairs, with which a program uses an emulator:
// credentials that any emulator takes, and nothing of the user's or the machine's
// own.
func Env() [][2]string {
	return [][2]string{
		{"AWS_ACCESS_KEY_ID", "test"},
		{"AWS_SECRET_ACCESS_KEY", "test"},
		{"AWS_SESSION_TOKEN", ""},
		{"AWS_PROFILE", ""},
		{"AWS_CONFIG_FILE", os.DevNull},
		{"AWS_SHARED_CREDENTIALS_FILE", os.DevNull},
		{"AWS_EC2_METADATA_DISABLED", "true"},
	}
}

// Shared returns the one emulator of this test process, in memory. The package
// has a TestMain that calls Main, and each test has tables of its own.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		shared.server = begin(t, "")
	}
	return shared.server
}

// Start returns an emulator that keeps its tables in a directory of the test,
// and ends with it.
func Start(t testing.TB) *Server {
	t.Helper()
	s := begin(t, t.TempDir())
	t.Cleanup(s.stop)
	return s
}

// Restart ends the emulator and starts it again on its port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Resume(t)
}

// Stop ends the emulator. It is asked to end: what it acknowledged in its last
// moments is lost when it is killed.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.ended
}

// Resume starts the emulator again after Stop, on its port and, if it is of Start,
// with the tables that it had.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// URL returns the bus URL of a table.
func (s *Server) URL(table string) string {
	return "dynamodb://" + table + "?region=" + Region + "&endpoint=" + s.Endpoint
}

func begin(t testing.TB, dir string) *Server {
	t.Helper()
	port, err := testprogram.FreePort("")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Endpoint: "http://127.0.0.1:" + strconv.Itoa(port), port: port, dir: dir}
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	if err := s.run(ctx); err != nil {
		testprogram.Missing(t, hint, err)
	}
	return s
}

// run starts the emulator and returns when it answers.
func (s *Server) run(ctx context.Context) error {
	java, err := installJava(ctx)
	if err != nil {
		return err
	}
	dir, err := installEmulator(ctx)
	if err != nil {
		return err
	}
	store := []string{"-inMemory"}
	if s.dir != "" {
		store = []string{"-dbPath", s.dir}
	}
	s.out.Reset()
	s.cmd = exec.Command(java, append([]string{
		"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", // a short life: start soon
		"-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar",
		"-port", strconv.Itoa(s.port), "-sharedDb", "-disableTelemetry",
	}, store...)...)
	s.cmd.Dir = dir
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if s.ended, err = testprogram.Start(s.cmd); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !answers(ctx, s.Endpoint) {
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("DynamoDB Local ended: %s", s.out.Bytes())
		case <-ctx.Done():
			s.stop()
			return fmt.Errorf("DynamoDB Local does not answer: %w: %s", ctx.Err(), s.out.Bytes())
		}
	}
	return nil
}

// answers reports whether the emulator refuses a request without signature,
// which is its answer when all of it is there.
func answers(ctx context.Context, endpoint string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return resp.StatusCode == http.StatusBadRequest
}

// stop kills the emulator and returns when it has ended.
func (s *Server) stop() {
	_ = s.cmd.Process.Kill() // it has ended already, or ends now
	<-s.ended
}
