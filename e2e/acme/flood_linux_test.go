// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/solver"
)

const (
	knownName = "known.example.test"
	// maxGrowth is how much more memory a server may have after the flood, in bytes.
	maxGrowth = 64 << 20
	// atOnce is how many handshakes of the flood are under way at a time.
	atOnce = 64
)

// TestUnknownNames asks a replica for a hundred thousand names that it does not have,
// half of them as a CA asks for challenges. The CA hears nothing of it, the replica's
// memory stays, and who asks for the name that it has gets it.
func TestUnknownNames(t *testing.T) {
	names := 100_000
	if race.Enabled {
		names /= 5 // whoever asks is slow then
	}
	var asked atomic.Int64
	var pebble *acmetest.CA
	f := newFleet(t, func(f *fleet) *config.Shared {
		pebble = acmetest.Start(t, acmetest.Options{HTTPPort: f.httpPort, TLSPort: f.tlsPort})
		pebble.DNS.A(knownName, replicaTwo)
		pebble.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet { // by which the manager asks when to renew, meanwhile
					asked.Add(1)
				}
				next.ServeHTTP(w, r)
			})
		})
		return &config.Shared{
			DefaultIssuer: "pebble",
			Issuers: map[string]config.Issuer{"pebble": {Type: "acme", ACME: &config.ACME{
				Directory: pebble.Directory(), Roots: pebble.WebRoots(), TermsAgreed: true, SkipCAA: true,
			}}},
		}
	})
	server := f.join("two", replicaTwo, plainServer)
	f.keyturn("cert", "mk", "--names", knownName, "--challenge", solver.TLSALPN01, "--group", group, "--wait", "served")

	known := &tls.Config{RootCAs: pebble.IssuerRoots(), ServerName: knownName}
	load := startLoad(f.tls(replicaTwo), known)
	before, calls := residentMemory(t, server), asked.Load()
	began := time.Now()
	most := flood(t, f.tls(replicaTwo), names, func() int64 { return residentMemory(t, server) })
	took := time.Since(began)
	made, err := load.end()
	if err != nil {
		t.Errorf("handshake %d for a known name: %v", made, err)
	}
	if n := asked.Load() - calls; n != 0 || calls == 0 {
		t.Errorf("the CA was asked %d times before, and %d times for unknown names", calls, n)
	}
	if most-before >= maxGrowth {
		t.Errorf("the server's memory went from %d to %d bytes, by more than %d", before, most, maxGrowth)
	}
	t.Logf("%d unknown names in %v; memory from %d to %d KiB at most; %d handshakes for a known name, none of which failed",
		names, took.Round(time.Millisecond), before>>10, most>>10, made)
	if made == 0 {
		t.Error("nobody asked for the known name meanwhile")
	}
}

// flood begins handshakes for that many names and returns the most that memory said, of
// looks at it after every thousandth.
func flood(t *testing.T, addr string, names int, memory func() int64) (most int64) {
	t.Helper()
	var hellos []*hello
	for _, protocols := range [][]string{{"h2", "http/1.1"}, {"acme-tls/1"}} {
		h, err := newHello(protocols...)
		if err != nil {
			t.Fatal(err)
		}
		hellos = append(hellos, h)
	}
	var next, failed atomic.Int64
	var workers sync.WaitGroup
	sample := make(chan struct{}, 1)
	for i := range atOnce {
		from := net.IPv4(127, 1, 0, byte(i+1)) // each has ports of its own
		workers.Go(func() {
			for {
				n := int(next.Add(1))
				if n > names {
					return
				}
				if err := hellos[n%len(hellos)].send(from, addr, n); err != nil && failed.Add(1) == 1 {
					t.Errorf("name %d: the server did not answer: %v", n, err)
				}
				if n%1000 == 0 {
					select {
					case sample <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		workers.Wait()
		close(done)
	}()
	for {
		select {
		case <-sample:
			most = max(most, memory())
		case <-done:
			if n := failed.Load(); n > 0 {
				t.Errorf("%d of %d names were not answered", n, names)
			}
			return max(most, memory())
		}
	}
}

// residentMemory is what a process has of the machine's, in bytes.
func residentMemory(t *testing.T, p *process) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%s: %v: %s", p, err, p.err.tail())
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("%s has no memory", p)
	return 0
}

// A load makes handshakes, all the time.
type load struct {
	stop, done chan struct{}
	made       int   // to be read when done is closed
	err        error // the first
}

func startLoad(addr string, config *tls.Config) *load {
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for l.err == nil {
			select {
			case <-l.stop:
				return
			case <-time.After(5 * time.Millisecond): // leaves the machine to the others
			}
			l.err = exchange(addr, config)
			l.made++
		}
	}()
	return l
}

// end ends the load and returns how many handshakes were made.
func (l *load) end() (made int, err error) {
	close(l.stop)
	<-l.done
	return l.made, l.err
}

// exchange makes a handshake and a request on it: before, a client of TLS 1.3 does not
// know whether the server took its part.
func exchange(addr string, config *tls.Config) error {
	dialer := &net.Dialer{Timeout: patience}
	conn, err := tls.DialWithDialer(dialer, "tcp", addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", config.ServerName); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		err = fmt.Errorf("the server answers %.100q", answer)
	}
	return err
}
