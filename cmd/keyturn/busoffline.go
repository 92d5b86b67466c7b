// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
)

// salvaged is the name of what could be read of a damaged log, until that is
// restored.
const salvaged = "salvaged-%d.kta"

// An offline bus is the embedded one of a data directory, run for a command while
// `keyturn serve` is stopped, where nobody else can reach it.
type offline struct {
	dir    *datadir.Dir
	tenant string
	say    func(id, what string)

	server *embedded.Server
	creds  string // a directory of the command's own, with what reaches the server
	conn   bus.Conn
}

// A madeLog finds a tenant's log, or makes it where there is none, and returns its id.
type madeLog func(ctx context.Context) (id string, err error)

// onBus is withBus, and runs the embedded bus of a data directory where `keyturn
// serve` does not.
func onBus(cmd *cobra.Command, work func(context.Context, *manager.Manager, madeLog) error) error {
	data, err := dataOf(cmd)
	if err != nil {
		return err
	}
	if dir := datadir.At(data); data == "" || !dir.Exists() || !standsStill(dir) {
		return withBus(cmd, func(ctx context.Context, m *manager.Manager, conn bus.Conn) error {
			return work(ctx, m, func(ctx context.Context) (string, error) { return makeLog(ctx, conn) })
		})
	}
	ctx, cancel := limited(cmd)
	defer cancel()
	p := newProgress(cmd)
	defer p.end()
	o, err := openOffline(data, p.say)
	if err != nil {
		return err
	}
	known, err := o.dir.LogID()
	var id string
	if err == nil {
		id, err = o.start(ctx, known)
	}
	var m *manager.Manager
	if err == nil {
		m, err = o.manager()
	}
	if err == nil {
		err = work(ctx, m, func(context.Context) (string, error) { return id, nil })
	}
	return errors.Join(sayRestore(err, o.dir), o.close())
}

// standsStill reports whether the bus of a data directory is an embedded one that
// does not run.
func standsStill(d *datadir.Dir) bool {
	return !d.Running() && (!d.Remote() || d.HasBusKeys())
}

// restoreEmbedded restores the embedded bus of a data directory: what can be read of
// it is kept first, and then it gets a new log.
func restoreEmbedded(ctx context.Context, cmd *cobra.Command, data string, files []string) (_ *restoreReport, err error) {
	p := newProgress(cmd)
	defer p.end()
	o, err := openOffline(data, p.say)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	known, err := o.dir.LogID()
	if err != nil {
		return nil, err
	}
	id, broken := o.salvage(ctx, known)
	before, err := o.look(ctx, files)
	if err != nil {
		return nil, err
	}
	if broken == nil && before.whole && before.Lost+before.Older == 0 {
		before.Log = id
		return &before.restoreReport, durable.Remove(before.salvaged)
	}
	p.say("restore", fmt.Sprintf("the bus gets a new log; %d entries of the old one could be read", before.Salvaged))
	id, aside, err := o.anew(ctx)
	if err != nil {
		return nil, err
	}
	rescued, err := filepath.Glob(o.dir.File(filepath.Join(datadir.Snapshot, "salvaged-*.kta")))
	if err != nil {
		return nil, err
	}
	m, err := o.manager()
	if err != nil {
		return nil, err
	}
	report, err := restore(ctx, m, append(files, rescued...))
	if err != nil {
		return nil, err
	}
	if err := o.dir.SetLogID(id); err != nil {
		return nil, err
	}
	for _, path := range rescued { // it is in the log, and so soon in the snapshot
		if err := durable.Remove(path); err != nil {
			return nil, err
		}
	}
	report.Log, report.Salvaged, report.Aside = id, before.Salvaged, aside
	if before.From != nil { // all that the new log lacks was not lost
		report.Lost, report.Older, report.Certificates = before.Lost, before.Older, before.Certificates
	}
	return report, nil
}

// openOffline locks a data directory, and puts the keys of its bus back.
func openOffline(data string, say func(id, what string)) (_ *offline, err error) {
	kind, err := datadir.At(data).Kind()
	if err != nil {
		return nil, err
	}
	o := &offline{say: say}
	if o.dir, err = datadir.Open(data, kind); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = o.close() // the first error is the one to report
		}
	}()
	if o.tenant, err = o.dir.Tenant(); err != nil {
		return nil, err
	}
	o.tenant = cmp.Or(o.tenant, manager.DefaultTenant)
	keys, err := o.dir.BusKeys()
	if err != nil {
		return nil, err
	}
	return o, embedded.PutKeyFiles(o.dir.File("bus"), keys)
}

// start starts the server, finds the log, or makes it where known is "", and
// connects to it. Where the server runs and the log is not the known one, the error
// says so, and what is there can be read nevertheless.
func (o *offline) start(ctx context.Context, known string) (id string, err error) {
	return o.startAs(ctx, known, embedded.Config{})
}

// salvage is start for a log that may be damaged. Where it is the error says so, and
// what is left of it can be read, if anything.
func (o *offline) salvage(ctx context.Context, known string) (id string, err error) {
	id, err = o.start(ctx, known)
	if errors.Is(err, embedded.ErrDamaged) {
		_, salvage := o.startAs(ctx, known, embedded.Config{Salvage: true})
		err = errors.Join(err, salvage)
	}
	return id, err
}

func (o *offline) startAs(ctx context.Context, known string, c embedded.Config) (id string, err error) {
	c.Dir, c.Listen, c.Logger = o.dir.File("bus"), "127.0.0.1:0", slog.New(slog.DiscardHandler)
	if o.server, err = embedded.Start(c); err != nil {
		return "", err
	}
	id, err = o.server.Create(ctx, o.tenant, known)
	if err != nil && known == "" {
		return "", err
	}
	if connectErr := o.connect(ctx); connectErr != nil {
		return "", connectErr
	}
	return id, err
}

func (o *offline) connect(ctx context.Context) (err error) {
	if o.creds, err = os.MkdirTemp("", "keyturn-"); err != nil {
		return err
	}
	creds, err := o.server.ManagerCreds(o.tenant)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{bus.URLFile: []byte(o.server.URL() + "\n"), bus.ManagerCreds: creds} {
		if err := durable.CreateFile(filepath.Join(o.creds, name), text, durable.PrivateFile); err != nil {
			return err
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	o.conn, err = bus.OpenDir(o.creds, bus.Options{Creds: bus.ManagerCreds, Tenant: o.tenant, Name: "keyturn restore", Logger: quiet})
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return o.conn.Connected(wait)
}

// manager makes one that works on the bus.
func (o *offline) manager() (*manager.Manager, error) {
	c := manager.Config{Log: o.conn, Tenant: o.tenant, Progress: o.say, Logger: slog.New(slog.DiscardHandler)}
	var err error
	if c.Identity, err = o.dir.Identity(); err != nil {
		return nil, err
	}
	if c.Managers, err = o.dir.Managers(); err != nil {
		return nil, err
	}
	if c.Chain, err = o.dir.ManagerChain(); err != nil {
		return nil, fmt.Errorf("the list of managers that was seen last: %w", err)
	}
	return manager.New(c)
}

// A finding is what can be read of a log, and what is missing there.
type finding struct {
	restoreReport
	salvaged string // the file in which it is
	whole    bool   // all of it could be read
}

// look keeps what can be read of the log, and finds out what is missing there.
func (o *offline) look(ctx context.Context, files []string) (f finding, err error) {
	if o.conn == nil {
		return f, nil
	}
	m, err := o.manager()
	if err != nil {
		return f, err
	}
	f.salvaged = o.dir.File(filepath.Join(datadir.Snapshot, fmt.Sprintf(salvaged, time.Now().UnixNano())))
	var n uint64
	var lost error
	if err := durable.WriteStream(f.salvaged, durable.PrivateFile, func(w io.Writer) (err error) {
		n, lost, err = m.SalvageLog(ctx, w)
		return err
	}); err != nil {
		return f, fmt.Errorf("keeping what the bus has: %w", err)
	}
	if lost == nil {
		plan, err := m.PlanRestoration(ctx, files)
		if err != nil {
			return f, err
		}
		f.restoreReport, f.whole = *newRestoreReport(plan), true
	}
	f.Salvaged = n
	return f, nil
}

// anew sets aside what the server has of the log, or all that it has if it does not
// start otherwise, and makes a new log.
func (o *offline) anew(ctx context.Context) (id, aside string, err error) {
	dir := o.dir.File("bus")
	if err := o.stop(); err != nil {
		return "", "", err
	}
	if aside, err = embedded.SetAside(dir, o.tenant); err != nil {
		return "", aside, err
	}
	if id, err = o.start(ctx, ""); err == nil || ctx.Err() != nil {
		return id, aside, err
	}
	o.say("restore", fmt.Sprintf("the bus does not start: %v; setting aside all that it has", err))
	if err := o.stop(); err != nil {
		return "", aside, err
	}
	if aside, err = embedded.SetAllAside(dir); err != nil {
		return "", aside, err
	}
	id, err = o.start(ctx, "")
	return id, aside, err
}

func (o *offline) stop() error {
	if o.conn != nil {
		o.conn.Close()
	}
	if o.server != nil {
		o.server.Shutdown()
	}
	err := error(nil)
	if o.creds != "" {
		err = os.RemoveAll(o.creds)
	}
	o.conn, o.server, o.creds = nil, nil, ""
	return err
}

func (o *offline) close() error { return errors.Join(o.stop(), o.dir.Close()) }
