// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "start the random choices here; 0 is the same place each time, or another where KEYTURN_SOAK is set")

// newRand makes the random choices of a test: where they find something, it is found
// again.
func newRand(t *testing.T) *rand.Rand {
	from := *seed
	if from == 0 && os.Getenv("KEYTURN_SOAK") != "" {
		from = rand.Uint64()
	}
	t.Logf("go test ./e2e -run %s -seed %d", t.Name(), from)
	return rand.New(rand.NewPCG(from, 0))
}

// A journal is what was ever said of the managed certificates. What is in it has
// to stay true.
type journal struct {
	mu      sync.Mutex
	ids     []string                               // guarded by mu; what "cert mk" reported
	names   map[string]string                      // guarded by mu; of each id
	said    map[string][]generation                // guarded by mu; what "cert renew" reported, by id
	serials map[string]map[generationNumber]string // guarded by mu; by id
	newest  map[string]generationNumber            // guarded by mu; by id
}

type generationNumber struct{ epoch, generation uint64 }

func (n generationNumber) less(o generationNumber) bool {
	return n.epoch < o.epoch || n.epoch == o.epoch && n.generation < o.generation
}

func newJournal() *journal {
	return &journal{
		names: make(map[string]string), said: make(map[string][]generation),
		serials: make(map[string]map[generationNumber]string), newest: make(map[string]generationNumber),
	}
}

func (j *journal) made(id, name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ids = append(j.ids, id)
	j.names[id] = name
}

func (j *journal) renewed(id string, g generation) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.said[id] = append(j.said[id], g)
}

func (j *journal) managed() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.ids...)
}

func (j *journal) name(id string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.names[id]
}

// take compares what "cert cat" says with everything that was said before, and
// remembers it.
func (j *journal) take(c certificate) error {
	if err := c.consistent(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	now := generationNumber{c.Epoch, c.Generation}
	if before := j.newest[c.ID]; now.less(before) {
		return fmt.Errorf("%s went back from %v to %v", c.ID, before, now)
	}
	j.newest[c.ID] = now
	known := j.serials[c.ID]
	if known == nil {
		known = make(map[generationNumber]string)
		j.serials[c.ID] = known
	}
	for _, g := range c.History {
		n := generationNumber{g.Epoch, g.Generation}
		if before, ok := known[n]; ok && before != g.Serial {
			return fmt.Errorf("%s: generation %d had serial %s and has %s: two certificates were published for it", c.ID, g.Generation, before, g.Serial)
		}
		known[n] = g.Serial
	}
	for _, g := range j.said[c.ID] {
		if err := c.check(g); err != nil {
			return err
		}
	}
	return nil
}

// generation returns which one of id has the serial number, 0 if none is known.
func (j *journal) generation(id, serial string) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n, s := range j.serials[id] {
		if s == serial {
			return n.generation
		}
	}
	return 0
}

// TestKill kills the instance again and again while certificates are made and
// renewed, by its own schedule and by commands, and looks at what the next one
// finds: nothing that was said before is lost or different, and what is served
// has a key that fits.
func TestKill(t *testing.T) {
	t.Parallel()
	const kills = 20
	random := newRand(t)

	s := newSandbox(t)
	// The edge's own is renewed every five seconds.
	in := s.serve("--dev-lifetime", "10s")
	j := newJournal()
	edgeID := s.edgeID()
	j.made(edgeID, "localhost")
	// These are renewed four to ten seconds after they were made, and yet valid for
	// as long as the test runs: a command that ends between its claim and its commit
	// and cannot reach the bus leaves a claim that is respected for two minutes.
	mkArgs := []string{"cert", "mk", "--subdomain", "--lifetime", "5m", "--renew-before", "4m50s"}
	mk := func(name string) error {
		out, err := s.try(append(mkArgs, name)...)
		if err == nil {
			j.made(strings.TrimSpace(out), name)
		}
		return err
	}
	for i := range 4 {
		if err := mk(fmt.Sprintf("k%d.example.com", i)); err != nil {
			t.Fatal(err)
		}
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	var stop, pause atomic.Bool
	defer stop.Store(true)
	var mu sync.Mutex
	var done, failed int // guarded by mu; renewals by commands
	for worker := range uint64(2) {
		random := rand.New(rand.NewPCG(*seed, worker+1))
		wg.Go(func() {
			for !stop.Load() {
				if pause.Load() { // a command under way goes on
					time.Sleep(10 * time.Millisecond)
					continue
				}
				ids := j.managed()[1:]
				id := ids[random.IntN(len(ids))]
				// While the instance is down a command may fail. One that says that it
				// did not has to be right.
				g, err := s.renew(id, "--timeout", "10s")
				var exit *exitError
				switch {
				case err == nil:
					j.renewed(id, g)
				case !errors.As(err, &exit) || exit.code != 1:
					t.Error(err)
				}
				mu.Lock()
				if err == nil {
					done++
				} else {
					failed++
				}
				mu.Unlock()
			}
		})
	}

	var slowest time.Duration
	var making sync.WaitGroup
	defer making.Wait()
	for i := range kills {
		making.Wait()
		making.Go(func() {
			_ = mk(fmt.Sprintf("m%d.example.com", i)) // only what it reports counts
		})
		time.Sleep(time.Duration(random.Int64N(int64(800 * time.Millisecond)))) // the random moment
		in.kill(t)
		killed := time.Now()

		// The bus comes back at the same place, as it would without port 0, so that
		// commands under way go on.
		var err error
		nats := in.nats
		if in, err = s.tryServe("--nats", nats); err != nil && strings.Contains(err.Error(), "in use") {
			in, err = s.tryServe() // somebody else took the port in this moment
		}
		if err != nil {
			t.Fatalf("after kill %d: %v", i+1, err)
		}
		served := s.client(t, in.edge, "k0.example.com")
		if _, err := served.serial(); err != nil {
			t.Fatalf("after kill %d: %v", i+1, err)
		}
		slowest = max(slowest, time.Since(killed))
		pause.Store(true)
		s.afterKill(in, j, i+1, i+1 == kills)
		pause.Store(false)
		if t.Failed() {
			return
		}
	}
	stop.Store(true)
	wg.Wait()

	generations := 0
	for _, known := range j.serials {
		generations += len(known)
	}
	t.Logf("%d kills, %d managed certificates, %d generations, %d renewals by commands, and %d that said that they failed; at worst %v from the kill to the first handshake",
		kills, len(j.ids), generations, done, failed, seconds(slowest))
	in.stop(t, sigterm)
}

// afterKill checks everything that was said; of the certificates made on the way
// only the last few, unless all are to be looked at.
func (s *sandbox) afterKill(in *instance, j *journal, kill int, all bool) {
	t := s.t
	t.Helper()
	ids := j.managed()
	listed := make(map[string]bool)
	for _, id := range s.list() {
		listed[id] = true
	}
	for i, id := range ids {
		if !listed[id] {
			t.Errorf("after kill %d: %s (%s) is not listed any more", kill, id, j.name(id))
		}
		if !all && i > 4 && i < len(ids)-2 {
			continue
		}
		c, err := s.tryCat(id)
		if err == nil {
			err = j.take(c)
		}
		if err != nil {
			t.Errorf("after kill %d: %v", kill, err)
			continue
		}
		client := s.client(t, in.edge, j.name(id))
		if id != ids[0] {
			// It is valid all the time, so that the first handshake has to do. A
			// handshake shows the key: nobody else could have signed it.
			if _, err := client.handshake(); err != nil {
				t.Errorf("after kill %d: %s: %v", kill, id, err)
			}
		}
		err = poll(func() error {
			serial, err := client.serial()
			if err != nil {
				return err
			}
			if j.generation(id, serial) >= c.Generation {
				return nil
			}
			newer, err := s.tryCat(id)
			if err == nil {
				err = j.take(newer)
			}
			if err != nil {
				return err
			}
			if got := j.generation(id, serial); got < c.Generation {
				return fmt.Errorf("serial %s is served, which is generation %d, not %d", serial, got, c.Generation)
			}
			return nil
		})
		if err != nil {
			t.Errorf("after kill %d: %s: %v", kill, id, err)
		}
	}
}
