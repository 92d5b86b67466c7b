// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/faultproxy"
)

var soakFor = flag.Duration("soak", 0, "how long TestSoak lasts; 0 is a minute and a half, or an hour where KEYTURN_SOAK is set")

// Times of the soak.
const (
	faultEvery = 30 * time.Second
	faultLasts = 12 * time.Second
	soakLives  = 5 * time.Minute
	soakBefore = soakLives - 20*time.Second
)

// TestSoak breaks a random link in a random way every half a minute, while clients make
// handshakes with the replica's server all the time. No handshake fails, and goroutines,
// descriptors and memory do not grow.
func TestSoak(t *testing.T) {
	lasts := *soakFor
	switch {
	case lasts > 0:
	case os.Getenv("KEYTURN_SOAK") != "":
		lasts = time.Hour
	default:
		lasts = 3 * faultEvery
	}
	f := newServers(t, soakLives).fleet(t, "soak", soakBefore)
	shaken, failed := f.handshakes(t)
	links := []string{"manager-bus", "replica-bus", "manager-issuer"}
	var seen []usage // after each fault
	for began := time.Now(); time.Since(began) < lasts; {
		link, fault := links[rand.IntN(len(links))], faultproxy.Faults()[rand.IntN(len(faultproxy.Faults()))]
		next := time.Now().Add(faultEvery)
		if err := f.links[link].Set(fault); err != nil {
			t.Fatal(err)
		}
		time.Sleep(faultLasts)
		if err := f.links[link].Set(faultproxy.None); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(next))
		seen = append(seen, use(t))
		t.Logf("%s, %s: %v, generation %d, %d handshakes", link, fault, seen[len(seen)-1], f.state().Generation, shaken.Load())
	}
	f.until("finding together in the end", patience, f.together(time.Now()))
	f.consistent()
	if n := failed.Load(); n > 0 || shaken.Load() == 0 {
		t.Errorf("%d of %d handshakes failed", n, shaken.Load())
	}
	wantNoGrowth(t, seen)
}

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	heap                    uint64 // bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d KiB", u.goroutines, u.descriptors, u.heap>>10)
}

func use(t *testing.T) usage {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		open = nil // not on this system
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), len(open), m.HeapAlloc}
}

// wantNoGrowth compares the first third of what was seen with the last: the least of
// either, since what is under way differs. Of less than a dozen it says nothing.
func wantNoGrowth(t *testing.T, seen []usage) {
	t.Helper()
	if len(seen) < 12 {
		return
	}
	third := len(seen) / 3
	least := func(of []usage) (u usage) {
		u = of[0]
		for _, o := range of {
			u = usage{min(u.goroutines, o.goroutines), min(u.descriptors, o.descriptors), min(u.heap, o.heap)}
		}
		return u
	}
	first, last := least(seen[:third]), least(seen[len(seen)-third:])
	t.Logf("at first %v, in the end %v", first, last)
	// The history of the certificate grows to a hundred generations, and Pebble keeps
	// every order: a MiB for each ten minutes is theirs.
	theirs := uint64(len(seen)) * uint64(faultEvery/time.Second) << 20 / 600
	if last.goroutines > first.goroutines+5 || last.descriptors > first.descriptors+5 || last.heap > first.heap+first.heap/4+theirs {
		t.Errorf("it grows: at first %v, in the end %v", first, last)
	}
}

// handshakes has clients make handshakes with a server on the replica's certificates,
// and counts.
func (f *fleet) handshakes(t *testing.T) (shaken, failed *atomic.Int64) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", f.replica.Store().ServerConfig())
	if err != nil {
		t.Fatal(err)
	}
	shaken, failed = new(atomic.Int64), new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { answer(l, &running) })
	for range 2 {
		running.Go(func() {
			for ctx.Err() == nil {
				conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: name, RootCAs: f.roots})
				if err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				shaken.Add(1)
				_ = conn.Close()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		running.Wait()
	})
	return shaken, failed
}

// answer makes the server's side of handshakes until l is closed.
func answer(l net.Listener, running *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		running.Go(func() {
			_ = conn.(*tls.Conn).Handshake() // the client says what is wrong
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.Close()
		})
	}
}

// TestNoGrowth holds that growth is seen.
func TestNoGrowth(t *testing.T) {
	var seen []usage
	for i := range 30 {
		seen = append(seen, usage{100 + i, 50, 1 << 20})
	}
	inner := new(testing.T)
	wantNoGrowth(inner, seen)
	slices.Reverse(seen)
	if !inner.Failed() {
		t.Error("thirty goroutines more are no growth")
	}
}
