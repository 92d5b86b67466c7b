// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

func TestMain(m *testing.M) {
	flag.Parse()
	defaults := map[string]string{"rapid.checks": "20", "rapid.steps": "60"}
	if os.Getenv("KEYTURN_SOAK") != "" {
		defaults["rapid.checks"] = "1000"
	}
	flag.Visit(func(f *flag.Flag) { delete(defaults, f.Name) })
	for name, value := range defaults {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const (
	managers = 3
	replicas = 3
)

var quiet = slog.New(slog.DiscardHandler)

// TestModel: see the package comment.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failed any // what rapid ends with has to be thrown in its own goroutine
		synctest.Test(t, func(*testing.T) {
			defer func() { failed = recover() }()
			w := newWorld(rt)
			defer w.end()
			rt.Repeat(map[string]func(*rapid.T){
				"make": w.make, "renew": w.renew, "remove": w.remove, "mark": w.mark,
				"weather": w.turn, "clear": w.clear, "wait": w.wait,
				"restart a manager": w.restartManager, "restart a replica": w.restartReplica,
			})
			w.heal()
			w.judge()
		})
		if failed != nil {
			panic(failed)
		}
	})
}

// A host is a manager, or one with a replica.
type host struct {
	*link
	name     string
	identity *seal.Identity
	manager  *manager.Manager
	dir      string
	replica  *replica.Replica
	ctx      context.Context // ends with the process
	stop     func()          // ends the process, and waits for that
}

// A world is a fleet, and what happened.
type world struct {
	t        *rapid.T
	dir      string
	net      *network
	hosts    []*host // managers first
	managers []*seal.VerifyKey
	group    *seal.PrivateKey
	commands sync.WaitGroup

	mu        sync.Mutex
	committed map[string]map[event.Version]sum // guarded by mu; what ever stood on the bus, by id
	said      map[string]map[event.Version]sum // guarded by mu; what commands reported
	gone      map[string]bool                  // guarded by mu; ids that a command said are removed
	applied   []map[string]event.Version       // guarded by mu; by replica and id
	wrong     []error                          // guarded by mu
}

type sum [sha256.Size]byte

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fault(format string, v ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Errorf(format, v...))
}

const shared = "issuers:\n  internal:\n    type: local\n    lifetime: 90d\n"

func newWorld(t *rapid.T) *world {
	dir, err := os.MkdirTemp("", "keyturn-model-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, dir: dir, committed: make(map[string]map[event.Version]sum), said: make(map[string]map[event.Version]sum), gone: make(map[string]bool),
	}
	log := &recorder{Log: membus.New(), w: w}
	w.net = newNetwork(log, rapid.Uint64().Draw(t, "network"))
	if w.group, err = seal.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	for i := range managers {
		w.addManager(i)
	}
	for i := range replicas {
		w.addReplica(i)
	}
	for i := range 2 {
		_, err := w.hosts[0].manager.Make(context.Background(), manager.Request{Names: []string{nameOf(i)}})
		w.must(err)
	}
	return w
}

func (w *world) addManager(i int) {
	id, err := seal.NewIdentity()
	w.must(err)
	h := &host{link: w.net.link(), name: fmt.Sprint("manager-", i), identity: id}
	w.hosts = append(w.hosts, h)
	w.managers = append(w.managers, id.Signing.Public())
	if i > 0 {
		id.Sealing, id.Managers = w.hosts[0].identity.Sealing, []*seal.VerifyKey{w.managers[0]}
		w.must(w.hosts[0].manager.AddSigner(context.Background(), h.name, id.Signing.Public(), ""))
		w.start(h)
		return
	}
	w.start(h)
	ctx := context.Background()
	w.must(h.manager.Init(ctx))
	w.must(h.manager.AddGroup(ctx, manager.DefaultGroup, w.group.Public()))
	_, err = h.manager.UpdateConfig(ctx, []byte(shared), bus.Position{})
	w.must(err)
}

// start starts a manager's process.
func (w *world) start(h *host) {
	m, err := manager.New(manager.Config{
		Log: h.link, Identity: h.identity, Name: h.name, Managers: w.managers[:1], Logger: quiet,
		Keys: func(string) ([]*seal.PrivateKey, error) { return []*seal.PrivateKey{w.group}, nil },
	})
	w.must(err)
	h.manager = m
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	h.ctx, h.stop = ctx, func() {
		cancel()
		running.Wait()
	}
}

func (w *world) addReplica(i int) {
	ctx := context.Background()
	h := &host{link: w.net.link(), name: fmt.Sprint("replica-", i), dir: filepath.Join(w.dir, fmt.Sprint("replica-", i))}
	w.hosts = append(w.hosts, h)
	w.applied = append(w.applied, make(map[string]event.Version))
	m := w.hosts[0].manager
	w.must(m.SetBusInfo(ctx, &event.BusInfo{URLs: []string{links.url(h.link)}}, nil))
	token, err := m.NewToken(ctx, manager.DefaultGroup, 0)
	w.must(err)
	_, err = replica.Join(ctx, replica.JoinConfig{Token: token, Dir: h.dir, Name: h.name, Logger: quiet})
	w.must(err)
	w.open(i)
}

// open starts a replica's process.
func (w *world) open(i int) {
	h := w.hosts[managers+i]
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	r, err := replica.Open(ctx, replica.Config{Dir: h.dir, Logger: quiet, OnChange: func(c replica.Change) { w.changed(i, c) }})
	w.must(err)
	h.replica = r
	h.stop = func() { _ = r.Close() }
}

// changed is what a replica reports: it never goes back, and takes what was committed.
func (w *world) changed(i int, c replica.Change) {
	w.mu.Lock()
	before, known := w.applied[i][c.ID], w.committed[c.ID][c.Version]
	w.applied[i][c.ID] = c.Version
	w.mu.Unlock()
	if !before.Less(c.Version) {
		w.fault("replica %d went from %v to %v of %s", i, before, c.Version, c.ID)
	}
	if c.Leaf != nil && known != sha256.Sum256(c.Leaf.Raw) {
		w.fault("replica %d has %v of %s, whose hash is %x, and %x was committed", i, c.Version, c.ID, sha256.Sum256(c.Leaf.Raw), known)
	}
}

// A recorder is the bus itself. It notes which certificates were committed.
type recorder struct {
	*membus.Log
	w *world
}

// Append implements bus.Log. Nobody learns of an entry before it is noted.
func (r *recorder) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	at, err := r.Log.Append(ctx, key, after, data)
	if err == nil && bus.InScope(key, event.StateScope) {
		if err := r.w.commit(data); err != nil {
			r.w.wrong = append(r.w.wrong, err)
		}
	}
	return at, err
}

// commit notes what a state says. It is called with mu held.
func (w *world) commit(data []byte) error {
	e, err := event.Trusted(manager.DefaultTenant, data)
	if err != nil {
		return err
	}
	s, ok := e.Body.(*event.State)
	if !ok || s.Current == nil {
		return nil
	}
	if e, err = event.Trusted(manager.DefaultTenant, s.Current); err != nil {
		return err
	}
	c, ok := e.Body.(*event.Certificate)
	if !ok {
		return nil
	}
	leaf := sum(sha256.Sum256(c.Chain[0]))
	if w.committed[c.ID] == nil {
		w.committed[c.ID] = make(map[event.Version]sum)
	}
	if before, ok := w.committed[c.ID][c.Version]; ok && before != leaf {
		return fmt.Errorf("two certificates were published for %v of %s", c.Version, c.ID)
	}
	w.committed[c.ID][c.Version] = leaf
	return nil
}

// command has a manager do something, for as long as its process lives, a minute at
// most.
func (w *world) command(t *rapid.T, do func(ctx context.Context, m *manager.Manager) (*manager.Managed, error)) {
	h := w.hosts[rapid.IntRange(0, managers-1).Draw(t, "manager")]
	ctx, m := h.ctx, h.manager
	w.commands.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		c, err := do(ctx, m)
		if err != nil || c == nil || c.Certificate == nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.said[c.ID] == nil {
			w.said[c.ID] = make(map[event.Version]sum)
		}
		w.said[c.ID][c.Version] = sha256.Sum256(c.Certificate.Chain[0])
	})
}

func nameOf(i int) string { return fmt.Sprintf("h%d.example", i) }

func (w *world) make(t *rapid.T) {
	name := nameOf(rapid.IntRange(0, 4).Draw(t, "name")) // two may want the same
	w.command(t, func(ctx context.Context, m *manager.Manager) (*manager.Managed, error) {
		return m.Make(ctx, manager.Request{Names: []string{name}})
	})
}

// known draws an id that was committed.
func (w *world) known(t *rapid.T) string {
	w.mu.Lock()
	ids := slices.Sorted(maps.Keys(w.committed))
	w.mu.Unlock()
	return ids[rapid.IntRange(0, 1000).Draw(t, "certificate")%len(ids)]
}

func (w *world) renew(t *rapid.T) {
	id := w.known(t)
	w.command(t, func(ctx context.Context, m *manager.Manager) (*manager.Managed, error) {
		return m.Renew(ctx, id, event.ReasonRekey)
	})
}

func (w *world) mark(t *rapid.T) {
	id := w.known(t)
	w.command(t, func(ctx context.Context, m *manager.Manager) (*manager.Managed, error) {
		return nil, m.Mark(ctx, id, event.ReasonRekey)
	})
}

func (w *world) remove(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.Skip("seldom")
	}
	id := w.known(t)
	w.command(t, func(ctx context.Context, m *manager.Manager) (*manager.Managed, error) {
		err := m.Remove(ctx, id)
		if err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gone[id] = true
		}
		return nil, err
	})
}

func (w *world) turn(t *rapid.T) {
	percent := func(of string, most int) int { return rapid.IntRange(0, most).Draw(t, of) }
	next := weather{
		Lost: percent("lost", 40), Unanswered: percent("unanswered", 40), Repeated: percent("repeated", 50), Breaks: percent("breaks", 20),
		Delay: time.Duration(rapid.IntRange(0, 4000).Draw(t, "delay")) * time.Millisecond,
	}
	switch rapid.IntRange(0, 3).Draw(t, "broken") {
	case 0:
		next.Cut = true
	case 1:
		next.HalfOpen = true
	}
	w.hosts[rapid.IntRange(0, len(w.hosts)-1).Draw(t, "host")].set(next)
}

func (w *world) clear(t *rapid.T) {
	w.hosts[rapid.IntRange(0, len(w.hosts)-1).Draw(t, "host")].set(weather{})
}

func (w *world) wait(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "for")) * time.Millisecond)
}

func (w *world) restartManager(t *rapid.T) {
	h := w.hosts[rapid.IntRange(0, managers-1).Draw(t, "manager")]
	h.stop()
	w.start(h)
}

func (w *world) restartReplica(t *rapid.T) {
	i := rapid.IntRange(0, replicas-1).Draw(t, "replica")
	w.hosts[managers+i].stop()
	w.open(i)
}

// heal has the network work again, and waits for what is under way.
func (w *world) heal() {
	for _, h := range w.hosts {
		h.set(weather{})
	}
	w.commands.Wait()
	w.net.late.Wait()
}

// finds is how long after that all must have found together: a claim of a manager that
// is gone lapses in two minutes, and what it left is made up for.
const finds = 5 * time.Minute

// judge waits until the replicas have what managers say, and holds that against what
// happened.
func (w *world) judge() {
	var differ error
	for began := time.Now(); time.Since(began) < finds; time.Sleep(time.Second) {
		if differ = w.agree(); differ == nil {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := append(w.wrong, differ)
	for id, versions := range w.said {
		for v, leaf := range versions {
			if w.committed[id][v] != leaf {
				wrong = append(wrong, fmt.Errorf("a command reported another %v of %s than was committed", v, id))
			}
		}
	}
	w.must(errors.Join(wrong...))
}

// agree compares what each replica serves with what stands on the bus.
func (w *world) agree() error {
	list, err := w.hosts[0].manager.List(context.Background())
	if err != nil {
		return err
	}
	w.mu.Lock()
	gone := w.gone
	w.mu.Unlock()
	var wrong []error
	for i := range replicas {
		r := w.hosts[managers+i].replica
		if s := r.Status(); !s.Following || s.Differs {
			wrong = append(wrong, fmt.Errorf("replica %d: %+v", i, s))
		}
		for _, c := range list {
			if c.Generation == 0 {
				continue // nothing was published
			}
			if gone[c.ID] && !c.Removed {
				wrong = append(wrong, fmt.Errorf("%s was removed, and is there", c.ID))
			}
			_, served := r.Store().Get(c.ID)
			if v := r.Version(c.ID); v != c.Version || served == c.Removed {
				wrong = append(wrong, fmt.Errorf("replica %d has %v of %s (served: %v), and %v stands on the bus (removed: %v)", i, v, c.ID, served, c.Version, c.Removed))
			}
		}
	}
	return errors.Join(wrong...)
}

func (w *world) end() {
	for _, h := range w.hosts {
		h.set(weather{})
	}
	w.commands.Wait()
	for _, h := range w.hosts {
		h.stop()
	}
	w.net.late.Wait()
	_ = os.RemoveAll(w.dir)
}
