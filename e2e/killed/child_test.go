// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/solvers"
	"github.com/keyturn/keyturn/manager"
)

// A child is the process that a scenario runs in.
type child struct {
	ctx    context.Context
	dir    string // the manager's
	tenant string
	data   *datadir.Dir
	conn   bus.Conn
	m      *manager.Manager
	// random has the same to say in each process of a seed.
	random *rand.Rand
}

// play runs a scenario in this process.
func play(ctx context.Context, name string) error {
	seed, err := strconv.ParseUint(os.Getenv(seedVariable), 10, 64)
	if err != nil {
		return err
	}
	durable.Observe(filePoints())
	c := &child{ctx: ctx, dir: os.Getenv(dirVariable), tenant: os.Getenv(tenantVariable), random: rand.New(rand.NewPCG(seed, 1))}
	s, ok := find(name)
	if !ok {
		return fmt.Errorf("there is no scenario %q", name)
	}
	c.data = datadir.At(c.dir)
	if s.offline {
		return s.act(c)
	}
	if c.m, c.conn, err = open(ctx, c.dir, c.tenant, ""); err != nil {
		return err
	}
	defer c.conn.Close()
	return s.act(c)
}

// open opens a manager by its directory. instance is the directory's if empty.
func open(ctx context.Context, dir, tenant, instance string) (*manager.Manager, bus.Conn, error) {
	d, quiet := datadir.At(dir), slog.New(slog.DiscardHandler)
	id, err := d.Identity()
	if err != nil {
		return nil, nil, err
	}
	trusted, err := d.Managers()
	if err != nil {
		return nil, nil, err
	}
	own, err := d.Instance()
	if err != nil {
		return nil, nil, err
	}
	conn, err := bus.OpenDir(dir, bus.Options{Creds: bus.ManagerCreds, Tenant: tenant, Logger: quiet})
	if err != nil {
		return nil, nil, err
	}
	if err := conn.Connected(ctx); err != nil {
		conn.Close()
		return nil, nil, err
	}
	m, err := manager.New(manager.Config{
		Log: conn, Identity: id, Managers: trusted, Tenant: tenant, Instance: cmp.Or(instance, own), Logger: quiet, Keys: d.GroupKeys,
		Mint:    func(secret []byte) (manager.Credentials, error) { return jetstream.NewMint(secret) },
		Solvers: solvers.With(quiet), Revoked: func([]string) {},
	})
	if err != nil {
		conn.Close()
	}
	return m, conn, err
}

// filePoints returns what makes points of the steps that files are written by.
func filePoints() func(durable.Step) {
	var mu sync.Mutex
	last := ""
	known := make(map[string]bool)
	for _, p := range crash.Files() {
		known[p] = true
	}
	return func(s durable.Step) {
		mu.Lock()
		name := nameOf(s)
		switch s.Op {
		case durable.OpRename, durable.OpLink:
			last = name
		case durable.OpNames:
			name, last = last, ""
		}
		mu.Unlock()
		if p := crash.File(name, string(s.Op)); known[p] {
			crash.Point(p)
		}
	}
}

// nameOf returns what package crash calls a file.
func nameOf(s durable.Step) string {
	name := filepath.Base(cmp.Or(s.To, s.Path))
	if durable.Temporary(name) {
		name = name[1:strings.LastIndex(strings.TrimSuffix(name, ".tmp"), ".")]
	}
	switch {
	case strings.HasSuffix(name, ".key"):
		return "group.key"
	case strings.HasPrefix(name, "snapshot-"):
		return "snapshot"
	}
	return name
}

// pass does what a running manager does by itself.
func (c *child) pass() error {
	_, err := c.m.RenewDue(c.ctx, manager.DueOptions{})
	return err
}

// each calls f with 0 to n-1: at once by some seeds, and else one by one, upwards or
// downwards.
func (c *child) each(n int, f func(i int) error) error {
	errs := make([]error, n)
	switch c.random.IntN(3) {
	case 0:
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { errs[i] = f(i) })
		}
		wg.Wait()
	case 1:
		for i := range n {
			errs[i] = f(i)
		}
	default:
		for i := n - 1; i >= 0; i-- {
			errs[i] = f(i)
		}
	}
	return errors.Join(errs...)
}

// states returns the managed certificates by their first names.
func (c *child) states() (map[string]*manager.Managed, error) {
	list, err := c.m.List(c.ctx)
	all := make(map[string]*manager.Managed)
	for _, s := range list {
		all[s.Spec.Names[0]] = s
	}
	return all, err
}
