// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// A client makes handshakes with a server until stop is called.
type client struct {
	stop  func()
	addr  string
	roots *x509.CertPool
	fails atomic.Int64
	made  atomic.Int64
}

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

func (c *client) handshake(version uint16) (int64, error) {
	conn, err := tls.Dial("tcp", c.addr, &tls.Config{RootCAs: c.roots, ServerName: "a.test", MinVersion: version, MaxVersion: version})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// count is a writer of an http.Server's errors.
type count struct {
	t *testing.T
	n *atomic.Int64
}

func (c count) Write(line []byte) (int, error) {
	c.n.Add(1)
	c.t.Logf("server: %s", line)
	return len(line), nil
}

// newServer serves store until the test ends, under handshakes of all versions all the time.
func newServer(t *testing.T, store *keyturn.Store, roots *x509.CertPool) *client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &client{addr: listener.Addr().String(), roots: roots}
	server := &http.Server{TLSConfig: store.ServerConfig(), ErrorLog: log.New(count{t, &c.fails}, "", 0)}
	var serving, running sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(listener, "", "") })
	stop := make(chan struct{})
	for _, version := range versions {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.handshake(version); err != nil {
					t.Errorf("handshake: %v", err)
					c.fails.Add(1)
					return
				}
				c.made.Add(1)
			}
		})
	}
	c.stop = sync.OnceFunc(func() {
		close(stop)
		running.Wait()
		// The server ends its handshakes after a client of TLS 1.3 has ended its own.
		if err := server.Shutdown(t.Context()); err != nil {
			server.Close()
		}
		serving.Wait()
	})
	t.Cleanup(c.stop)
	return c
}

// TestHandshakesOverAllChanges puts the files through all that happens to them, while
// clients of both versions connect without end: none may fail, and after each
// change what is served is what was last whole.
func TestHandshakesOverAllChanges(t *testing.T) {
	variants := map[string]func(Options, Source) (*Watcher, error){
		"call": func(o Options, s Source) (*Watcher, error) { return watchCalled(o, s) },
		"poll": func(o Options, s Source) (*Watcher, error) {
			o.Interval = 5 * time.Millisecond
			return watch(o, noNotifier, []Source{s})
		},
	}
	if runtime.GOOS == "linux" {
		variants["watch"] = func(o Options, s Source) (*Watcher, error) {
			o.Interval = -1
			return Watch(o, s)
		}
	}
	for name, start := range variants {
		t.Run(name, func(t *testing.T) { overAllChanges(t, start, name == "call") })
	}
}

func overAllChanges(t *testing.T, start func(Options, Source) (*Watcher, error), byCall bool) {
	root := newCA(t, "root", nil)
	ca := newCA(t, "intermediate", root)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	dir := filepath.Join(t.TempDir(), "tls")
	crt, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")

	var store keyturn.Store
	journal := newJournal()
	a, chainA, keyA := ca.leaf(t)
	b, chainB, keyB := ca.leaf(t)
	c, chainC, keyC := ca.leaf(t)
	d, chainD, keyD := ca.leaf(t)
	e, chainE, keyE := ca.leaf(t)
	write(t, crt, chainA)
	write(t, key, keyA)
	w, err := start(Options{Logger: journal.logger()}, KeyPair(&store, "web", crt, key))
	must(t, err)
	defer w.Close()
	clients := newServer(t, &store, roots)
	events := make(chan keyturn.Event, 100)
	defer store.Observe(events)()

	serves := func(stage string, want int64) {
		t.Helper()
		for name, version := range versions {
			got, err := clients.handshake(version)
			if err != nil || got != want {
				t.Errorf("%s, %s: serial number %d, %v; want %d", stage, name, got, err, want)
			}
		}
	}
	good := func(stage string, want int64) {
		t.Helper()
		if byCall {
			if err := w.Reload(); err != nil {
				t.Errorf("%s: %v", stage, err)
			}
		}
		if event := receive(t, events); event.Kind != keyturn.Swapped || event.ID != "web" {
			t.Errorf("%s: event %v", stage, event)
		}
		serves(stage, want)
	}
	bad := func(stage, text string, want int64) {
		t.Helper()
		if byCall {
			refuses(t, w.Reload(), text)
		}
		journal.wait(t, text)
		serves(stage, want)
	}

	serves("good", a)
	write(t, key, keyB)
	bad("half pair", "different pairs", a)
	write(t, crt, chainB)
	good("good again", b)
	write(t, crt, []byte("junk\n"))
	bad("junk", "no CERTIFICATE block", b)
	write(t, crt, chainC[:len(chainC)-100])
	bad("half-written", "cut short", b)
	write(t, crt, nil)
	bad("empty", "it is empty", b)
	must(t, os.Remove(crt))
	must(t, os.Remove(key))
	bad("deleted", "no such file", b)
	must(t, os.Mkdir(crt, 0o700))
	bad("a directory", "no regular file", b)
	must(t, os.Remove(crt))
	must(t, os.Symlink("tls.crt", crt))
	bad("a link to itself", "too many levels", b)
	must(t, os.Remove(crt))

	// As kubelet's AtomicWriter does.
	write(t, filepath.Join(dir, "..1", "tls.crt"), chainC)
	write(t, filepath.Join(dir, "..1", "tls.key"), keyC)
	must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	must(t, os.Symlink("..data/tls.crt", crt))
	must(t, os.Symlink("..data/tls.key", key))
	good("Kubernetes", c)
	for i, next := range []struct {
		serial     int64
		chain, key []byte
	}{{d, chainD, keyD}, {e, chainE, keyE}} {
		version := []string{"..2", "..3"}[i]
		write(t, filepath.Join(dir, version, "tls.crt"), next.chain)
		write(t, filepath.Join(dir, version, "tls.key"), next.key)
		must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		must(t, os.RemoveAll(filepath.Join(dir, []string{"..1", "..2"}[i])))
		good("link swap", next.serial)
	}

	// The whole directory goes away, and comes again.
	must(t, os.Rename(dir, dir+".away"))
	bad("directory away", "no such file", e)
	write(t, filepath.Join(dir+".new", "tls.crt"), chainA)
	write(t, filepath.Join(dir+".new", "tls.key"), keyA)
	must(t, os.Rename(dir+".new", dir))
	good("directory back", a)

	must(t, w.Close())
	write(t, crt, chainB)
	write(t, key, keyB)
	refuses(t, w.Reload(), "closed")
	serves("after Close", a)
	clients.stop()
	if fails, made := clients.fails.Load(), clients.made.Load(); fails != 0 || made == 0 {
		t.Errorf("%d handshakes, %d failed", made, fails)
	}
}
