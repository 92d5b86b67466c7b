// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// clients are many of one kind, who all want the entries of one group.
type clients struct {
	name  string
	group string
	f     *fleet
	ends  []func()

	came   atomic.Int64
	want   atomic.Int64
	all    chan struct{}         // gets a value when as many have come as are wanted
	failed atomic.Pointer[error] // the first failure
}

// clients makes n clients of a group.
func (f *fleet) clients(name, group string, n int, one func(*clients) (func(), error)) (*clients, error) {
	c := &clients{name: name, group: group, f: f, all: make(chan struct{}, 1)}
	var mu sync.Mutex
	err := inParallel(n, func(int) error {
		end, err := one(c)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		mu.Lock()
		defer mu.Unlock()
		c.ends = append(c.ends, end)
		return nil
	})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *clients) close() {
	_ = inParallel(len(c.ends), func(i int) error { c.ends[i](); return nil })
}

// count counts one delivery.
func (c *clients) count() {
	if c.came.Add(1) == c.want.Load() {
		c.all <- struct{}{}
	}
}

func (c *clients) fail(err error) { c.failed.CompareAndSwap(nil, &err) }

// deliver appends entries and returns when each client has each of them.
func (c *clients) deliver(entries []bus.Entry) error {
	c.expect(len(entries))
	for _, e := range entries {
		if err := c.f.append(e.Key, e.Data); err != nil {
			return err
		}
	}
	return c.wait()
}

func (c *clients) expect(entries int) {
	c.came.Store(0)
	c.want.Store(int64(entries * len(c.ends)))
}

func (c *clients) wait() error {
	select {
	case <-c.all:
	case <-time.After(5 * time.Minute):
		return fmt.Errorf("%s: %d of %d: %w", c.name, c.came.Load(), c.want.Load(), errLate)
	}
	if err := c.failed.Load(); err != nil {
		return fmt.Errorf("%s: %w", c.name, *err)
	}
	return nil
}

// A take is what a client does with an entry.
type take func(c *clients, key string, data []byte) error

// listen is a subscription of the engine alone, where each message is taken.
func listen(take take) func(*clients) (func(), error) {
	return func(c *clients) (func(), error) {
		nc, _, err := c.f.dial()
		if err != nil {
			return nil, err
		}
		_, err = nc.Subscribe("ktnews."+manager.DefaultTenant+".log.group."+c.group+".>", func(msg *nats.Msg) {
			if err := take(c, keyOf(msg.Subject), msg.Data); err != nil {
				c.fail(err)
			}
			c.count()
		})
		if err == nil {
			err = nc.Flush()
		}
		return nc.Close, err
	}
}

// verify is what nobody who takes an entry can do without.
func verify(c *clients, key string, data []byte) error {
	_, err := c.f.open(key, data)
	return err
}

// swap is all that has to be done to serve a certificate: it is verified, opened, and
// checked and put by the store.
func swap() take {
	store := new(keyturn.Store)
	return func(c *clients, key string, data []byte) error {
		e, err := c.f.open(key, data)
		if err != nil {
			return err
		}
		body := e.Body.(*event.Certificate)
		pkcs8, err := body.OpenKey(manager.DefaultTenant, []*seal.PrivateKey{c.f.key})
		if err != nil {
			return err
		}
		parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
		if err != nil {
			return err
		}
		return store.Put(body.ID, tls.Certificate{Certificate: body.Chain, PrivateKey: parsed})
	}
}

// A source is a log or a board.
type source interface {
	Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error]
}

// follow follows what a replica does: its group, whose entries are taken, and four
// single keys.
func follow(take take) func(*clients) (func(), error) {
	return func(c *clients) (func(), error) {
		id, conn, err := c.f.join(c.group)
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		var work, current sync.WaitGroup
		for _, s := range []struct {
			source source
			scope  string
		}{
			{conn, event.GroupScope(c.group)},
			{conn, event.MemberKey(c.group, id)},
			{conn, event.ManagersKey},
			{conn, event.ChallengesKey(c.group)},
			{conn.Board(), event.BeaconKey(c.group)},
		} {
			current.Add(1)
			first := sync.OnceFunc(current.Done)
			work.Go(func() {
				followAlways(ctx, s.source, s.scope, func(u bus.Update) {
					if u.CaughtUp {
						first()
						return
					}
					if s.scope != event.GroupScope(c.group) {
						return
					}
					if err := take(c, u.Key, u.Data); err != nil {
						c.fail(err)
					}
					c.count()
				})
			})
		}
		current.Wait()
		return func() {
			stop()
			conn.Close()
			work.Wait()
		}, nil
	}
}

// followAlways follows as a replica does: from where it was, and again soon when that
// ended.
func followAlways(ctx context.Context, s source, scope string, take func(bus.Update)) {
	var at bus.Position
	for ctx.Err() == nil {
		for u, err := range s.Follow(ctx, scope, at) {
			if err != nil {
				break
			}
			at = u.Position
			take(u)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50*time.Millisecond + rand.N(100*time.Millisecond)):
		}
	}
}

// serve is a whole replica without a snapshot.
func serve(c *clients) (func(), error) {
	_, conn, err := c.f.join(c.group)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := replica.Open(ctx, replica.Config{
		Managers: []*seal.VerifyKey{c.f.signer.Public()}, Keys: []*seal.PrivateKey{c.f.key}, Group: c.group, Log: conn,
		Logger: quiet(), OnChange: func(replica.Change) { c.count() },
	})
	return func() {
		_ = r.Close() // it writes nothing
		conn.Close()
	}, err
}

// watch is the engine's own key-value watch of as much as a replica follows of the log.
func watch(c *clients) (func(), error) {
	nc, js, err := c.f.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nc.Close, err
	}
	w, err := kv.WatchFiltered(context.Background(), []string{"group." + c.group + ".>", "member." + c.group + "." + event.NewID(), "conf.managers", "challenge." + c.group})
	if err != nil {
		return nc.Close, err
	}
	for e := range w.Updates() {
		if e == nil {
			break // all that there was has come
		}
	}
	go func() {
		for e := range w.Updates() {
			if e != nil {
				c.count()
			}
		}
	}()
	return func() {
		_ = w.Stop() // the connection ends with it
		nc.Close()
	}, nil
}

// bucket is where watch watches.
const bucket = "bench"

// order is an ordered consumer of the engine, which goes on where it was after a
// reconnect.
func order(c *clients) (func(), error) {
	nc, js, err := c.f.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	consumer, err := js.OrderedConsumer(ctx, "KEYTURN_"+manager.DefaultTenant, natsjs.OrderedConsumerConfig{
		FilterSubjects: []string{"keyturn." + manager.DefaultTenant + ".group." + c.group + ".>"}, DeliverPolicy: natsjs.DeliverNewPolicy,
	})
	if err != nil {
		return nc.Close, err
	}
	_, err = consumer.Consume(func(natsjs.Msg) { c.count() })
	return nc.Close, err
}
