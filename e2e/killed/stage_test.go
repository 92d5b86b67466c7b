// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/durable/powercut"
)

// A stage is what all worlds share: servers of the bus, and CAs.
type stage struct {
	program string
	dir     string
	ca      *acmetest.CA
	deaf    *acmetest.CA // takes no orders
	worlds  atomic.Int64

	mu  sync.Mutex
	bus *server // guarded by mu; the one that takes worlds
}

// crowd is how many worlds a server of the bus gets: each has streams there that cost
// memory and time for as long as it runs.
const crowd = 25

// A server is a bus that ends with the last of its worlds.
type server struct {
	*embedded.Server
	dir        string
	came, left int // guarded by the stage's mu
}

// enter returns the server for another world, and how the world leaves it.
func (s *stage) enter(t testing.TB) (on *server, leave func()) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bus == nil || s.bus.came == crowd {
		dir, err := os.MkdirTemp(s.dir, "bus-")
		must(t, err)
		started, err := embedded.Start(embedded.Config{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		s.bus = &server{Server: started, dir: dir}
	}
	on = s.bus
	on.came++
	return on, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if on.left++; on.left == on.came && (on.came == crowd || s.bus != on) {
			on.Shutdown()
			_ = os.RemoveAll(on.dir) // memory, mostly
		}
	}
}

// close ends the server that still takes worlds.
func (s *stage) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bus != nil && s.bus.left < crowd {
		s.bus.Shutdown()
	}
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{program: build(t), dir: powercut.Dir(t)}
	t.Cleanup(s.close)
	s.ca = acmetest.Start(t, acmetest.Options{NoValidation: true})
	s.deaf = acmetest.Start(t, acmetest.Options{NoValidation: true})
	s.deaf.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/order-plz") {
				acmetest.Says(http.StatusServiceUnavailable, "serverInternal", "no orders are taken")(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	return s
}

// config is the shared configuration.
func (s *stage) config(dir string) string {
	ca := func(name string, c *acmetest.CA, limits string) string {
		return fmt.Sprintf("  %s:\n    type: acme\n    directory: %s\n    terms_agreed: true\n    skip_caa: true\n%s    roots: |\n      %s\n",
			name, c.Directory(), limits, strings.ReplaceAll(strings.TrimSpace(c.WebRoots()), "\n", "\n      "))
	}
	return "default_issuer: ca\nissuers:\n  ca: {type: local}\n  other: {type: local}\n" +
		ca("pebble", s.ca, "") + ca("scarce", s.ca, "    limits: {set: 1/7d}\n") + ca("deaf", s.deaf, "    limits: {orders: 1000000/1h}\n") +
		fmt.Sprintf("solvers:\n  files: {type: webroot, path: %q}\nzones: {.: [files]}\n", dir)
}
