// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// A tape is a bus in memory that can be put back to what it was, as from an old
// back-up: everybody loses the connection, and finds another log. Joined
// directories find it by its URL.
type tape struct {
	board bus.Board

	mu   sync.Mutex
	log  *membus.Log   // guarded by mu
	cut  chan struct{} // guarded by mu; closed when the log is put back
	kept []bus.Entry
}

const tapeURL = "tape://here"

// tapes is the driver of the one tape that there is.
var tapes struct {
	sync.Mutex
	now *tape // guarded by the mutex
}

type tapeDriver struct{}

func init() { bus.Register(tapeDriver{}, "tape") }

func (tapeDriver) Open(string, string, bus.Options) (bus.Conn, error) {
	tapes.Lock()
	defer tapes.Unlock()
	return tapes.now, nil
}

func (tapeDriver) User([]byte) (string, error)                { return "", nil }
func (tapeDriver) Credentials(string, []byte) ([]byte, error) { return nil, nil }

func newTape() *tape {
	log := membus.New()
	t := &tape{board: log.Board(), log: log, cut: make(chan struct{})}
	tapes.Lock()
	defer tapes.Unlock()
	tapes.now = t
	return t
}

func (l *tape) Connected(ctx context.Context) error { return ctx.Err() }
func (l *tape) Check() error                        { return nil }
func (l *tape) Close()                              {}
func (l *tape) Board() bus.Board                    { return l.board }

func (l *tape) current() (*membus.Log, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log, l.cut
}

func (l *tape) Get(ctx context.Context, key string) (bus.Entry, error) {
	log, _ := l.current()
	return log.Get(ctx, key)
}

func (l *tape) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	log, _ := l.current()
	return log.Append(ctx, key, after, data)
}

func (l *tape) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		log, cut := l.current()
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-cut:
				cancel()
			case <-inner.Done():
			}
		}()
		for u, err := range log.Follow(inner, scope, from) {
			if err != nil && ctx.Err() == nil && inner.Err() != nil {
				err = errors.New("the connection is lost")
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

// keep remembers what stands on the log, and rewind puts that back.
func (l *tape) keep(t *testing.T) {
	log, _ := l.current()
	l.kept = nil
	for _, scope := range []string{"conf", "names", "token", "join", "member", "group", "state"} {
		for u, err := range log.Follow(t.Context(), scope, bus.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if u.CaughtUp {
				break
			}
			l.kept = append(l.kept, u.Entry)
		}
	}
}

func (l *tape) rewind(t *testing.T) {
	log := membus.New()
	for _, e := range l.kept {
		if _, err := log.Append(t.Context(), e.Key, bus.Position{}, e.Data); err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = log
	close(l.cut)
	l.cut = make(chan struct{})
}

// TestFromTokenToRollback: a host joins by a token, takes what is issued and
// reports it; the bus is put back to an old state, of which only the host knows
// that it is old; and all is as it should be again, without anybody's doing.
func TestFromTokenToRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape()
		quiet := slog.New(slog.DiscardHandler)
		id, err := seal.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		group, err := seal.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		// start runs a manager that remembers nothing, until it is stopped.
		start := func() (m *manager.Manager, stop func()) {
			m, err := manager.New(manager.Config{
				Log: log, Identity: id, Logger: quiet, Name: "manager",
				Keys: func(string) ([]*seal.PrivateKey, error) { return []*seal.PrivateKey{group}, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.AddGroup(t.Context(), manager.DefaultGroup, group.Public()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { m.Run(ctx) })
			return m, func() {
				cancel()
				wg.Wait()
			}
		}
		m, stop := start()
		if _, err := m.UpdateConfig(t.Context(), []byte("issuers:\n  internal:\n    type: local\n"), bus.Position{}); err != nil {
			t.Fatal(err)
		}
		if err := m.SetBusInfo(t.Context(), &event.BusInfo{URLs: []string{tapeURL}}, nil); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "host")
		token, err := m.NewToken(t.Context(), manager.DefaultGroup, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := replica.Join(t.Context(), replica.JoinConfig{Token: token, Dir: dir, Name: "web-1", Logger: quiet}); err != nil {
			t.Fatal(err)
		}
		r, err := replica.Open(t.Context(), replica.Config{Dir: dir, Logger: quiet, Program: "v1"})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()

		c, err := m.Make(t.Context(), manager.Request{Names: []string{"a.example"}})
		if err != nil {
			t.Fatal(err)
		}
		served := func(m *manager.Manager, c *manager.Managed) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			if _, err := m.Wait(ctx, c.ID, c.Version, nil); err != nil {
				t.Fatal(err)
			}
			if v := r.Version(c.ID); v.Less(c.Version) {
				t.Fatalf("reported, and %v is served", v)
			}
		}
		time.Sleep(2 * time.Minute) // it has reported, so it is waited for
		served(m, c)
		f, err := m.Fleet(t.Context(), manager.Query{})
		if err != nil || len(f.Members) != 1 {
			t.Fatalf("%+v, %v", f, err)
		}
		if h := f.Members[0]; h.Name != "web-1" || !h.Granted || !h.Following || h.Beacon.IsZero() || h.Differs || h.Silent || h.Program != "v1" || h.Certificates != 1 {
			t.Errorf("%+v", h)
		}

		log.keep(t)
		for range 2 {
			if c, err = m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
		}
		served(m, c)
		stop()
		log.rewind(t)
		m, stop = start()
		defer stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		got, err := m.Get(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Less(got.Version) || got.Epoch != 2 || r.Version(c.ID) != got.Version {
			t.Errorf("%v was lost, %v was made, %v is served", c.Version, got.Version, r.Version(c.ID))
		}
		if f, err = m.Fleet(t.Context(), manager.Query{}); err != nil {
			t.Fatal(err)
		}
		if h, n := f.Members[0], f.Certificates[0]; h.Differs || h.Proofs != 0 || h.Silent || n.Served != 1 || m.Stats().Rollbacks != 1 {
			t.Errorf("%+v, %+v, %+v", h, n, m.Stats())
		}
	})
}
