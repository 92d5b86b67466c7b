// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
)

// startBus starts the embedded bus, or finds the one that is elsewhere, and
// connects to it.
func (in *instance) startBus(ctx context.Context) error {
	switch {
	case in.config.Bus != "":
		if _, err := os.Stat(in.dir.File("bus")); err == nil {
			return fmt.Errorf("the data directory %s has a bus of its own: start without --bus, or choose another directory with --data", in.dir.Path())
		}
		if err := in.dir.SetURL(in.config.Bus); err != nil {
			return fmt.Errorf("telling others where the bus is: %w", err)
		}
	case in.dir.Remote() && in.dir.HasBusKeys():
		return fmt.Errorf("the bus of %s is gone: %s is not there: `keyturn bus restore --data %s` rebuilds it from the snapshot", in.dir.Path(), in.dir.File("bus"), in.dir.Path())
	case !in.dir.Remote():
		if err := in.startEmbedded(ctx); err != nil {
			return err
		}
	}
	if in.embedded == nil && in.config.Advertise+in.config.Tenants != "" {
		return usagef("--advertise and --tenants are for the embedded bus, and the bus of %s is elsewhere", in.dir.Path())
	}
	return in.connect(ctx)
}

// connect reaches the bus. It does not wait long for one that is down: whoever
// started the process is told, and starts it again.
func (in *instance) connect(ctx context.Context) error {
	conn, err := bus.OpenDir(in.dir.Path(), bus.Options{
		Creds: bus.ManagerCreds, Monitor: in.config.BusMonitor, Tenant: in.config.Tenant, Name: "keyturn serve", Logger: in.logger,
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: put the credentials there by which this manager logs in, and start again", err)
	}
	if err != nil {
		return err
	}
	in.log = conn
	in.onStop(func() error { conn.Close(); return nil })
	if in.url, err = bus.ReadURL(in.dir.Path()); err != nil {
		return err
	}
	if err := in.awaitConnection(ctx, conn); err != nil {
		return unreachable(in.url, err, "is it up, and can this host reach it?")
	}
	return in.openLog(ctx)
}

// letInTimeout is how long the embedded bus may take to answer its own manager, when a
// fleet comes back to it as one. Who ended then would have all of it begin anew.
const letInTimeout = 2 * time.Minute

// awaitConnection waits for a bus elsewhere as long as a command does.
func (in *instance) awaitConnection(ctx context.Context, conn bus.Conn) error {
	if in.embedded == nil {
		wait, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		return conn.Connected(wait)
	}
	return in.untilAnswered(ctx, conn.Connected)
}

// untilAnswered does something that may be done twice. Where it is the embedded bus that
// does not answer in time, it does it again.
func (in *instance) untilAnswered(ctx context.Context, do func(context.Context) error) error {
	if in.embedded == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, letInTimeout)
	defer cancel()
	for said := ""; ; {
		err := do(ctx)
		if late, ok := errors.AsType[net.Error](err); !errors.Is(err, context.DeadlineExceeded) && !(ok && late.Timeout()) || ctx.Err() != nil {
			return err
		}
		if err.Error() != said {
			said = err.Error()
			in.logger.Warn("the embedded bus has not answered in time; trying on", "error", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// create has the embedded bus make the log, which its users may not.
func (in *instance) create(ctx context.Context, known string) (string, error) {
	if in.embedded != nil {
		return in.embedded.Create(ctx, in.config.Tenant, known)
	}
	c, ok := in.log.(creator)
	if !ok {
		return "", errors.New("this bus cannot make a log")
	}
	return c.Create(ctx, known)
}

// A creator is a bus that can make a tenant's log, and knows it again.
type creator interface {
	Create(ctx context.Context, known string) (id string, err error)
}

// openLog makes the log at the first start, and later on makes sure that it is
// the same.
func (in *instance) openLog(ctx context.Context) error {
	known, err := in.dir.LogID()
	if err != nil {
		return err
	}
	id, err := in.create(ctx, known)
	if errors.Is(err, bus.ErrPosition) {
		return fmt.Errorf("opening the log on %s: %w, or run: keyturn bus restore --data %s", jetstream.Redact(in.url), err, in.dir.Path())
	}
	if err != nil {
		return fmt.Errorf("opening the log on %s: %w", jetstream.Redact(in.url), err)
	}
	if id != known {
		if err := in.dir.SetLogID(id); err != nil {
			return err
		}
	}
	return in.keepBusKeys()
}

// keepBusKeys keeps a copy of the embedded bus's keys, with which the bus is
// rebuilt.
func (in *instance) keepBusKeys() error {
	if in.embedded == nil {
		return in.dir.DropBusKeys()
	}
	files, err := embedded.KeyFiles(in.dir.File("bus"))
	if err != nil {
		return err
	}
	if err := in.dir.KeepBusKeys(files); err != nil {
		return fmt.Errorf("keeping the keys of the bus: %w", err)
	}
	return nil
}

func (in *instance) startEmbedded(ctx context.Context) error {
	c := embedded.Config{Dir: in.dir.File("bus"), Listen: in.config.NATS, Logger: in.logger}
	if in.config.Advertise != "" {
		c.Advertise = strings.Split(in.config.Advertise, ",")
	}
	if in.config.Tenants != "" {
		c.Tenants = strings.Split(in.config.Tenants, ",")
	}
	if slices.Contains(c.Tenants, in.config.Tenant) {
		return usagef("--tenants has %q, which is this manager's own tenant", in.config.Tenant)
	}
	server, err := embedded.Start(c)
	if errors.Is(err, embedded.ErrAddressInUse) {
		return portInUse("nats", in.config.NATS)
	}
	if err != nil {
		return sayRestore(err, in.dir)
	}
	in.embedded = server
	in.onStop(func() error { server.Shutdown(); return nil })
	if err := in.dir.Creds(bus.ManagerCreds, func() ([]byte, error) { return server.ManagerCreds(in.config.Tenant) }); err != nil {
		return err
	}
	if err := in.dir.SetRoots(datadir.PEM(server.Roots())); err != nil {
		return err
	}
	if err := in.dir.SetURL(server.URL()); err != nil {
		return fmt.Errorf("telling others where the bus is: %w", err)
	}
	for _, t := range c.Tenants {
		if err := in.addTenant(ctx, t); err != nil {
			return fmt.Errorf("adding tenant %s: %w", t, err)
		}
	}
	return nil
}

// sayRestore says what to do where an error is that the files of the bus are damaged.
func sayRestore(err error, dir *datadir.Dir) error {
	if errors.Is(err, embedded.ErrDamaged) {
		return fmt.Errorf("%w: `keyturn bus restore --data %s` gets back what was in them", err, dir.Path())
	}
	return err
}

// addTenant makes the log of another tenant, and the directory with which its
// first manager starts.
func (in *instance) addTenant(ctx context.Context, tenant string) error {
	if _, err := in.embedded.Create(ctx, tenant, ""); err != nil {
		return err
	}
	creds, err := in.embedded.ManagerCreds(tenant)
	if err != nil {
		return err
	}
	return in.dir.MakeTenant(datadir.Tenancy{
		Tenant: tenant, URL: strings.Join(in.embedded.URLs(), ","), Roots: in.embedded.Roots(), Creds: creds, Secret: in.embedded.Secret(tenant),
	})
}

// tellBus puts on the bus how other hosts reach it, and what makes credentials
// for them.
func (in *instance) tellBus(ctx context.Context) error {
	info := &event.BusInfo{URLs: strings.Split(in.url, ",")}
	var secret []byte
	var err error
	if in.embedded != nil {
		info.URLs, info.Roots, secret = in.embedded.URLs(), in.embedded.Roots(), in.embedded.Secret(in.config.Tenant)
		return in.manager.SetBusInfo(ctx, info, secret)
	}
	if in.dir.Added() != "" {
		return nil // another manager has said it
	}
	if info.Roots, err = in.dir.Roots(); err != nil {
		return err
	}
	if secret, err = in.dir.BusSecret(); err != nil {
		return err
	}
	return in.manager.SetBusInfo(ctx, info, secret)
}

// A revoker is a bus that takes rights away when a manager asks for it.
type revoker interface {
	Revoke(ctx context.Context, users []string) error
}

// revoked ends the connections of those whose rights were taken away.
func (in *instance) revoked(users []string) {
	if len(users) == 0 {
		return
	}
	var err error
	if r, ok := in.log.(revoker); in.embedded != nil {
		err = in.embedded.Revoke(in.config.Tenant, users)
	} else if ok {
		err = r.Revoke(context.Background(), users)
	}
	if err != nil {
		in.logger.Error("revoked hosts may still reach the bus", "error", err)
	}
}
