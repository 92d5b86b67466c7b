// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/replica"
)

// A cable is a bus that can be cut off. It has no board: a month of receipts, each signed
// anew, takes long.
type cable struct {
	bus.Log
	cut  atomic.Bool
	stop chan struct{} // closed when it is cut
}

// givesUp is long, so that thirty days are not made of a million attempts.
const givesUp = 10 * time.Minute

// away returns, where the bus is cut off, the error that comes of it, after the time that
// it takes to give up.
func (c *cable) away(ctx context.Context) error {
	if !c.cut.Load() {
		return nil
	}
	select {
	case <-time.After(givesUp):
		return errCut
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errCut = errors.New("the bus is away")

func (c *cable) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return c.follow(ctx, func(ctx context.Context) iter.Seq2[bus.Update, error] { return c.Log.Follow(ctx, scope, from) })
}

func (c *cable) follow(ctx context.Context, from func(context.Context) iter.Seq2[bus.Update, error]) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		if err := c.away(ctx); err != nil {
			yield(bus.Update{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-c.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		for u, err := range from(ctx) {
			if c.cut.Load() {
				u, err = bus.Update{}, errCut
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

func (c *cable) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := c.away(ctx); err != nil {
		return bus.Entry{}, err
	}
	return c.Log.Get(ctx, key)
}

const day = 24 * time.Hour

// TestThirtyDaysWithoutABus cuts a replica off for thirty days, in which it is killed a
// hundred times. Each certificate is served until its own end, and what the replica said
// of the time that is left was right. Then the bus comes back.
func TestThirtyDaysWithoutABus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = time.Hour
		f := newFleet(t)
		ends := make(map[string]time.Time) // by name
		for id, days := range map[string]time.Duration{id1: 90, id2: 20, id3: 12, id4: 29} {
			f.lifetime = days * day
			name := fmt.Sprintf("d%d.example", days)
			ends[name] = f.publish(id, 1, name).NotAfter
		}
		roots := x509.NewCertPool()
		roots.AddCert(f.ca.Root())
		served := func(r *replica.Replica, name string) bool {
			if serves(t, r, name) == nil {
				return false
			}
			cert, err := r.Store().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
			if err != nil {
				t.Fatal(err)
			}
			between := x509.NewCertPool()
			for _, der := range cert.Certificate[1:] {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				between.AddCert(c)
			}
			_, err = cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between, CurrentTime: time.Now()})
			return err == nil
		}

		dir, _ := f.joined()
		c := &cable{Log: f.log, stop: make(chan struct{})}
		open := func() *replica.Replica {
			r := f.open(replica.Config{Dir: dir, Log: c, Logger: quiet})
			synctest.Wait()
			return r
		}
		r := open()
		c.cut.Store(true)
		close(c.stop)
		synctest.Wait()
		began, budget := time.Now(), r.Status().Budget
		var first time.Time // something was not served
		kill := began.Add(every / 2)
		for kills := 0; time.Since(began) < 30*day; time.Sleep(every) {
			if s := r.Status(); s.Following || s.Certificates != len(ends) || !s.Budget.Equal(budget) {
				t.Fatalf("after %v: %+v", time.Since(began), s)
			}
			for name, end := range ends {
				ok := served(r, name)
				if ok == time.Now().After(end) {
					t.Fatalf("after %v: %s, which ends on %v, is served: %v", time.Since(began), name, end, ok)
				}
				if !ok && first.IsZero() {
					first = time.Now()
				}
			}
			if kills < 100 && time.Now().After(kill) {
				// A kill leaves the directory as it is now.
				next := filepath.Join(t.TempDir(), fmt.Sprint(kills))
				if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				_ = r.Close()
				dir, kills, kill = next, kills+1, kill.Add(30*day/100)
				private(t, dir)
				r = open()
			}
		}
		said, was := budget.Sub(began), first.Sub(began)
		t.Logf("without a bus all was served for %v, and %v was said", was, said)
		if off := (was - said).Abs(); off > said/100 {
			t.Errorf("off by %v", off)
		}

		f.lifetime = 90 * day
		leaf := f.publish(id3, 2, "d12.example")
		c.stop = make(chan struct{})
		c.cut.Store(false)
		time.Sleep(givesUp + time.Minute)
		synctest.Wait()
		wantServed(t, r, "d12.example", leaf)
		if s := r.Status(); !s.Following {
			t.Errorf("the bus is back: %+v", s)
		}
	})
}

// private gives a copied directory the modes that the copy has lost.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// serveDir is the variable that has this test's program serve from a directory.
const serveDir = "KEYTURN_TEST_SERVE"

// serveFrom is what that program does: it serves TLS on loopback, without a bus, says
// where, and ends when its input does.
func serveFrom(dir string) {
	away := &cable{Log: newTape()}
	away.cut.Store(true)
	r, err := replica.Open(context.Background(), replica.Config{Dir: dir, Log: away, Logger: quiet})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", r.Store().ServerConfig())
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestKilledAgainAndAgain kills a program a hundred times that serves from its snapshot,
// without a bus: while it serves, or while it starts. The next one serves all the same.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leafs := map[string]*x509.Certificate{"a.example": f.publish(id1, 2, "a.example"), "b.example": f.publish(id2, 1, "b.example")}
	dir, _ := f.joined()
	if err := f.open(inDir(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		if n%2 == 0 {
			addr, kill := startFrom(t, dir)
			for name, leaf := range leafs {
				if got := presented(t, addr, name); !got.Equal(leaf) {
					t.Fatalf("after %d kills: not the certificate of %s that was published last", n, name)
				}
			}
			kill()
			continue
		}
		cmd, _ := command(t, dir)
		time.Sleep(rand.N(50 * time.Millisecond)) // the moment is the test's choice
		end(cmd)
	}
}

// command starts the program that serves from a directory.
func command(t *testing.T, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveDir+"="+dir)
	if _, err := cmd.StdinPipe(); err != nil { // ends with this process
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // which says that it was killed
}

// startFrom waits until it serves.
func startFrom(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	cmd, out := command(t, dir)
	line, err := bufio.NewReader(out).ReadString('\n')
	addr = strings.TrimSpace(line)
	if _, _, bad := net.SplitHostPort(addr); err != nil || bad != nil {
		end(cmd)
		t.Fatalf("%q, %v", line, err)
	}
	return addr, func() { end(cmd) }
}

// presented returns what a server presents for a name.
func presented(t *testing.T, addr, name string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // it is compared
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}
