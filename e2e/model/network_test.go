// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// Times of the network.
const (
	// giveUp is how long a request without an answer takes, and silence how long it takes
	// until a follower notices that nothing comes any more: as those of real engines.
	giveUp  = 5 * time.Second
	silence = 15 * time.Second
)

// Errors of the network.
var (
	errNoAnswer = errors.New("no answer came")
	errLost     = errors.New("the connection was lost")
)

// weather is how bad a link is. The zero one is good.
type weather struct {
	// Lost and Unanswered are how many of a hundred requests do not arrive, and how many
	// do, and their answer does not. Repeated are those that arrive once more, later.
	Lost, Unanswered, Repeated int
	// Delay is the most that anything takes.
	Delay time.Duration
	// Breaks is how many of a hundred updates end what is followed.
	Breaks int
	// Cut lets nothing through. HalfOpen lets requests through, and nothing that is
	// followed.
	Cut, HalfOpen bool
}

// A link is how one host reaches the bus. It is a bus.Conn.
type link struct {
	net *network

	mu      sync.Mutex
	weather weather       // guarded by mu
	changed chan struct{} // guarded by mu; closed when the weather changes
}

// A network is all links to a bus.
type network struct {
	log  bus.Boarder
	late sync.WaitGroup // what arrives once more

	mu   sync.Mutex
	rand *rand.Rand // guarded by mu
}

func newNetwork(log bus.Boarder, seed uint64) *network {
	return &network{log: log, rand: rand.New(rand.NewPCG(seed, 0))}
}

func (n *network) link() *link { return &link{net: n, changed: make(chan struct{})} }

// chance is true in so many of a hundred cases.
func (n *network) chance(percent int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rand.IntN(100) < percent
}

func (n *network) delay(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.rand.Int64N(int64(most)))
}

// set changes the weather.
func (l *link) set(w weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.weather = w
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) now() (weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.weather, l.changed
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unanswered is what a request comes to that gets no answer.
func unanswered(ctx context.Context) error {
	if err := sleep(ctx, giveUp); err != nil {
		return err
	}
	return errNoAnswer
}

// request makes one, which a network may carry out twice, or not at all.
func (l *link) request(ctx context.Context, do func(context.Context) error) error {
	w, _ := l.now()
	if w.Cut || l.net.chance(w.Lost) {
		return unanswered(ctx)
	}
	if err := sleep(ctx, l.net.delay(w.Delay)); err != nil {
		return err
	}
	err := do(context.WithoutCancel(ctx)) // what is on its way arrives
	if l.net.chance(w.Repeated) {
		l.net.late.Go(func() {
			time.Sleep(l.net.delay(4 * giveUp))
			_ = do(context.WithoutCancel(ctx)) // nobody hears what comes of it
		})
	}
	if w, _ = l.now(); w.Cut || l.net.chance(w.Unanswered) {
		return unanswered(ctx)
	}
	if late := sleep(ctx, l.net.delay(w.Delay)); late != nil {
		return late
	}
	return err
}

// An answer is what the first of the times that a request is carried out comes to.
type answer[T any] struct {
	mu   sync.Mutex
	once bool // guarded by mu
	is   T    // guarded by mu
}

func (a *answer[T]) set(is T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.once {
		a.is, a.once = is, true
	}
}

func (a *answer[T]) get() T {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.is
}

// Get implements bus.Log.
func (l *link) Get(ctx context.Context, key string) (bus.Entry, error) {
	var got answer[bus.Entry]
	if err := l.request(ctx, func(ctx context.Context) error {
		e, err := l.net.log.Get(ctx, key)
		got.set(e)
		return err
	}); err != nil {
		return bus.Entry{}, err
	}
	return got.get(), nil
}

// Append implements bus.Log.
func (l *link) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	var got answer[bus.Position]
	if err := l.request(ctx, func(ctx context.Context) error {
		at, err := l.net.log.Append(ctx, key, after, data)
		got.set(at)
		return err
	}); err != nil {
		return bus.Position{}, err
	}
	return got.get(), nil
}

// Follow implements bus.Log.
func (l *link) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return l.follow(ctx, func(ctx context.Context) iter.Seq2[bus.Update, error] { return l.net.log.Follow(ctx, scope, from) })
}

// follow passes on what is followed, in its order, late, and not for ever.
func (l *link) follow(ctx context.Context, from func(context.Context) iter.Seq2[bus.Update, error]) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		if w, _ := l.now(); w.Cut || l.net.chance(w.Lost) {
			yield(bus.Update{}, unanswered(ctx))
			return
		}
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		var watching sync.WaitGroup
		defer watching.Wait()
		defer stop(nil)
		watching.Go(func() { l.watch(ctx, stop) })
		for u, err := range from(ctx) {
			w, _ := l.now()
			if err == nil && !w.Cut && !w.HalfOpen {
				err = sleep(ctx, l.net.delay(w.Delay))
			}
			for w, changed := l.now(); err == nil && (w.Cut || w.HalfOpen); w, changed = l.now() {
				select { // watch ends it
				case <-ctx.Done():
					err = ctx.Err()
				case <-changed:
				}
			}
			if err == nil && l.net.chance(w.Breaks) {
				err = errLost
			}
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			if err != nil {
				u = bus.Update{}
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

// watch ends what is followed when nothing could have come for as long as an engine
// needs to notice it.
func (l *link) watch(ctx context.Context, stop context.CancelCauseFunc) {
	for ctx.Err() == nil {
		w, changed := l.now()
		var silent <-chan time.Time
		if w.Cut || w.HalfOpen {
			silent = time.After(silence)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-silent:
			stop(errLost)
		}
	}
}

// Board implements bus.Boarder.
func (l *link) Board() bus.Board { return board{l} }

type board struct{ *link }

// Put implements bus.Board. It waits for no answer.
func (b board) Put(ctx context.Context, key string, data []byte) error {
	w, _ := b.now()
	if w.Cut || b.net.chance(w.Lost) {
		return nil
	}
	b.net.late.Go(func() {
		time.Sleep(b.net.delay(w.Delay))
		_ = b.net.log.Board().Put(context.WithoutCancel(ctx), key, data)
	})
	return nil
}

// Follow implements bus.Board.
func (b board) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return b.follow(ctx, func(ctx context.Context) iter.Seq2[bus.Update, error] {
		return b.net.log.Board().Follow(ctx, scope, from)
	})
}

// Connected implements bus.Conn.
func (l *link) Connected(ctx context.Context) error { return ctx.Err() }

// Check implements bus.Conn.
func (l *link) Check() error {
	if w, _ := l.now(); w.Cut {
		return errLost
	}
	return nil
}

// Close implements bus.Conn.
func (l *link) Close() {}

// driver opens links by their URLs, for those who join.
type driver struct {
	mu    sync.Mutex
	links []*link // guarded by mu
}

var links = new(driver)

func init() { bus.Register(links, "model") }

func (d *driver) url(l *link) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.links = append(d.links, l)
	return fmt.Sprintf("model://%d", len(d.links)-1)
}

// Open implements bus.Driver.
func (d *driver) Open(_, url string, _ bus.Options) (bus.Conn, error) {
	var n int
	if _, err := fmt.Sscanf(url, "model://%d", &n); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.links[n], nil
}

// User implements bus.Driver.
func (*driver) User([]byte) (string, error) { return "", nil }

// Credentials implements bus.Driver.
func (*driver) Credentials(string, []byte) ([]byte, error) { return nil, nil }
