// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An engine is a server on a directory, which is a manager's, too.
type engine struct {
	dir    string
	config embedded.Config
	server *embedded.Server
}

func start(t *testing.T, dir string) *engine {
	t.Helper()
	return startOn(t, dir, "127.0.0.1:0")
}

func startOn(t *testing.T, dir, listen string) *engine {
	t.Helper()
	e := &engine{dir: dir, config: embedded.Config{Dir: filepath.Join(dir, "bus"), Listen: listen, Logger: slog.New(slog.DiscardHandler)}}
	e.start(t)
	t.Cleanup(func() { e.server.Shutdown() })
	e.write(t, bus.ManagerCreds, func() ([]byte, error) { return e.server.ManagerCreds("default") })
	return e
}

func (e *engine) start(t *testing.T) {
	t.Helper()
	s, err := embedded.Start(e.config)
	if err != nil {
		t.Fatal(err)
	}
	e.server = s
	e.write(t, bus.URLFile, func() ([]byte, error) { return []byte(s.URL() + "\n"), nil })
	for _, der := range s.Roots() {
		e.write(t, bus.RootsFile, func() ([]byte, error) {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
		})
	}
}

func (e *engine) write(t *testing.T, name string, text func() ([]byte, error)) {
	t.Helper()
	b, err := text()
	if err == nil {
		err = os.WriteFile(filepath.Join(e.dir, name), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (e *engine) connect(t *testing.T, o bus.Options) bus.Conn {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	l, err := bus.OpenDir(e.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func (e *engine) open(t *testing.T) bus.Log {
	t.Helper()
	if _, err := e.server.Create(t.Context(), "default", ""); err != nil {
		t.Fatal(err)
	}
	return e.connect(t, bus.Options{Creds: bus.ManagerCreds})
}

func TestConformance(t *testing.T) {
	for name, listen := range map[string]string{"Plain": "127.0.0.1:0", "TLS": "0.0.0.0:0"} {
		engine := func(t *testing.T) bustest.Engine {
			e := startOn(t, t.TempDir(), listen)
			return bustest.Engine{
				Open:  e.open,
				Other: func(t *testing.T) bus.Log { return startOn(t, t.TempDir(), listen).open(t) },
				Restart: func(t *testing.T) {
					e.server.Shutdown()
					e.start(t)
				},
			}
		}
		t.Run(name+"/Log", func(t *testing.T) { bustest.Run(t, engine) })
		t.Run(name+"/Board", func(t *testing.T) { bustest.RunBoard(t, engine) })
	}
}

func TestALostLogIsNotReplacedByAnEmptyOne(t *testing.T) {
	e := start(t, t.TempDir())
	id, err := e.server.Create(t.Context(), "default", "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := e.server.Create(t.Context(), "default", id); err != nil || again != id {
		t.Fatal(again, err)
	}
	e.server.Shutdown()
	if err := os.RemoveAll(filepath.Join(e.dir, "bus", "jetstream")); err != nil {
		t.Fatal(err)
	}
	e.start(t)
	if _, err := e.server.Create(t.Context(), "default", id); !errors.Is(err, bus.ErrPosition) {
		t.Fatalf("the log is gone, and Create says %v", err)
	}
	if _, err := e.server.Create(t.Context(), "default", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := e.server.Create(t.Context(), "default", id); !errors.Is(err, bus.ErrPosition) {
		t.Fatalf("it is another log, and Create says %v", err)
	}
}

// TestALostBoardIsMadeAgain, and whoever followed it gets what is on the new one.
// A log that an earlier version made has none, either.
func TestALostBoardIsMadeAgain(t *testing.T) {
	e := start(t, t.TempDir())
	id, err := e.server.Create(t.Context(), "default", "")
	if err != nil {
		t.Fatal(err)
	}
	l := e.connect(t, bus.Options{Creds: bus.ManagerCreds})
	follow := func(from bus.Position) bus.Position {
		t.Helper()
		for u, err := range l.Board().Follow(t.Context(), "beacon", from) {
			if err != nil {
				t.Fatal(err)
			}
			if u.Key == "beacon/web" {
				return u.Position
			}
		}
		return bus.Position{}
	}
	var at bus.Position
	for range 3 {
		if err := l.Board().Put(t.Context(), "beacon/web", []byte("b")); err != nil {
			t.Fatal(err)
		}
		at = follow(at)
	}
	e.server.Shutdown()
	boards, err := filepath.Glob(filepath.Join(e.dir, "bus", "jetstream", "*", "*", "streams", "KEYTURN_default_BOARD"))
	if err != nil || len(boards) != 1 {
		t.Fatal(boards, err)
	}
	if err := os.RemoveAll(boards[0]); err != nil {
		t.Fatal(err)
	}
	e.start(t)
	if again, err := e.server.Create(t.Context(), "default", id); err != nil || again != id {
		t.Fatal(again, err)
	}
	for l.Check() != nil {
		time.Sleep(time.Millisecond)
	}
	if err := l.Board().Put(t.Context(), "beacon/web", []byte("b")); err != nil {
		t.Fatal(err)
	}
	if again := follow(at); again.Log == at.Log || again.Seq != 1 {
		t.Errorf("from %v: %v", at, again)
	}
}

func TestAddresses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for what, c := range map[string]struct {
		config embedded.Config
		want   string
	}{
		"no host":                {embedded.Config{Listen: ":0"}, "not an IP address"},
		"a name":                 {embedded.Config{Listen: "example.com:0"}, "not an IP address"},
		"no port":                {embedded.Config{Listen: "127.0.0.1"}, "not HOST:PORT"},
		"another machine's":      {embedded.Config{Listen: "198.51.100.1:0"}, "cannot assign"},
		"a taken port":           {embedded.Config{Listen: taken.Addr().String()}, taken.Addr().String()},
		"loopback, advertised":   {embedded.Config{Listen: "127.0.0.1:0", Advertise: []string{"bus.example"}}, "cannot reach"},
		"a URL to be advertised": {embedded.Config{Listen: "0.0.0.0:0", Advertise: []string{"tls://bus.example"}}, "neither a host's name"},
	} {
		c.config.Dir = t.TempDir()
		s, err := embedded.Start(c.config)
		if err == nil {
			s.Shutdown()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		if inUse := what == "a taken port"; errors.Is(err, embedded.ErrAddressInUse) != inUse {
			t.Errorf("%s: in use is %t", what, !inUse)
		}
	}
}

func TestKeyFilesArePrivate(t *testing.T) {
	e := start(t, t.TempDir())
	err := filepath.WalkDir(filepath.Join(e.dir, "bus"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".nk") {
			if fi, _ := d.Info(); fi.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, fi.Mode())
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(e.dir, "bus", "operator.nk")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Start(embedded.Config{Dir: filepath.Join(e.dir, "bus"), Listen: "127.0.0.1:0"}); err == nil {
		t.Error("started with a key that all can read")
	}
}

func TestConnectRefusesBadCredentialsAndURLs(t *testing.T) {
	dir := t.TempDir()
	creds := filepath.Join(dir, "creds")
	if err := os.WriteFile(creds, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]jetstream.Options{
		"no URL":         {},
		"not a URL":      {URL: "127.0.0.1"},
		"another scheme": {URL: "http://127.0.0.1:1"},
		"no creds":       {URL: "nats://127.0.0.1:1", Creds: filepath.Join(dir, "none")},
		"junk for creds": {URL: "nats://127.0.0.1:1", Creds: creds},
		"joined nowhere": {URLFile: filepath.Join(dir, "none"), Creds: filepath.Join(dir, "none")},
	} {
		if l, err := jetstream.Connect(o); err == nil {
			l.Close()
			t.Errorf("%s: connected", what)
		}
	}
}
