// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/solvers"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
)

// stopTimeout is how long requests under way get when the process stops.
const stopTimeout = 5 * time.Second

// An instance is everything that a serve process runs. What start started,
// stop ends in the opposite order, also if start failed half-way.
type instance struct {
	config serveConfig
	logger *slog.Logger
	out    io.Writer

	dir      *datadir.Dir
	embedded *embedded.Server // nil where the bus is elsewhere
	log      bus.Conn
	manager  *manager.Manager
	status   *status.Status
	url      string // of the bus

	failed chan error
	stops  []func() error
}

func (in *instance) onStop(f func() error) { in.stops = append(in.stops, f) }

func (in *instance) stop() error {
	var errs []error
	for i := len(in.stops) - 1; i >= 0; i-- {
		errs = append(errs, in.stops[i]())
	}
	in.stops = nil
	return errors.Join(errs...)
}

// start starts everything. What was typed is checked first, then the directory
// is locked: a second instance is told so, and not that a port is taken.
func (in *instance) start(ctx context.Context) error {
	in.failed = make(chan error, 2)
	in.status = status.New(in.logger)
	for flag, addr := range map[string]string{"http": in.config.HTTP, "edge": in.config.edge} {
		if flag == "edge" && (!in.config.dev || addr == "") {
			continue
		}
		if err := checkLoopback(flag, addr); err != nil {
			return err
		}
	}
	if in.config.dev && in.config.Bus != "" {
		return usagef("--dev runs a bus of its own: give no --bus")
	}
	if in.config.dev {
		if err := checkLoopback("nats", in.config.NATS); err != nil {
			return err
		}
	}
	kind := datadir.Production
	if in.config.dev {
		kind = datadir.Dev
	}
	if err := in.open(kind); err != nil {
		return err
	}
	web, err := in.listen("http", in.config.HTTP)
	if err != nil {
		return err
	}
	var edge net.Listener
	if in.config.dev && in.config.edge != "" {
		if edge, err = in.listen("edge", in.config.edge); err != nil {
			return err
		}
	}
	if err := in.startBus(ctx); err != nil {
		return err
	}
	if err := in.startManager(ctx); err != nil {
		return err
	}
	if err := in.startCheckIn(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	in.status.Handle(mux)
	if in.config.dev {
		d, err := in.startDev(ctx, edge)
		if err != nil {
			return err
		}
		mux.Handle("/", d.edge.Handler())
		in.startHTTP(web, localOnly(mux))
		// Stopped before the HTTP server, whose open pages would hold it up.
		in.onStop(func() error { return shutdown("edge", d.edge.Shutdown) })
		d.banner(web.Addr(), edge)
		d.startTelling()
		return nil
	}
	in.startHTTP(web, localOnly(mux))
	in.logger.Info("keyturn serves", "data", in.dir.Path(), "bus", in.url, "http", web.Addr().String())
	return nil
}

// listen listens; the flag is named where that fails.
func (in *instance) listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, portInUse(flag, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s (--%s): %w", addr, flag, err)
	}
	in.onStop(func() error {
		_ = l.Close() // its server may have closed it
		return nil
	})
	return l, nil
}

// checkLoopback refuses addresses that others could reach.
func checkLoopback(flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("--%s is %q, not HOST:PORT", flag, addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("--%s is %q: only loopback addresses are served, since what is said there is not encrypted or anybody may ask", flag, addr)
	}
	return nil
}

func portInUse(flag, addr string) error {
	return fmt.Errorf("%s is in use by another program: stop that one, or choose another address with --%s", addr, flag)
}

// open opens the data directory, as its tenant's.
func (in *instance) open(kind string) (err error) {
	if in.dir, err = datadir.Open(in.config.Data, kind); err != nil {
		return err
	}
	in.onStop(in.dir.Close)
	return in.setTenant()
}

// setTenant brings --tenant and what the directory says together.
func (in *instance) setTenant() error {
	had, err := in.dir.Tenant()
	if err != nil {
		return err
	}
	in.config.Tenant = cmp.Or(in.config.Tenant, had, manager.DefaultTenant)
	return in.dir.SetTenant(in.config.Tenant)
}

// makeManager makes a manager that is ready to work, and the bus for it.
func (in *instance) makeManager(ctx context.Context) error {
	c := manager.Config{
		Log: in.log, Tenant: in.config.Tenant, Name: in.name(), Keys: in.dir.GroupKeys, Mint: mint, Solvers: solvers.With(in.logger),
		Logger: in.logger, Changed: in.status.Changed, Snapshot: in.dir.File(datadir.Snapshot),
	}
	var err error
	if c.Identity, err = in.dir.Identity(); err != nil {
		return err
	}
	if c.Managers, err = in.dir.Managers(); err != nil {
		return err
	}
	if c.Chain, err = in.dir.ManagerChain(); err != nil {
		return fmt.Errorf("the list of managers that was seen last: %w", err)
	}
	c.Learnt = func(chain []byte) {
		if err := in.dir.SetManagerChain(chain); err != nil {
			in.logger.Error("who the managers are could not be written down: after a restart one that was revoked may be believed", "error", err)
		}
	}
	if c.Instance, err = in.dir.Instance(); err != nil {
		return err
	}
	c.Revoked = in.revoked
	if in.manager, err = manager.New(c); err != nil {
		return err
	}
	err = in.untilAnswered(ctx, in.prepare)
	if in.embedded != nil && errors.Is(err, manager.ErrNotManager) {
		// The others need the bus. Whom they revoke is told to it.
		in.logger.Error("the bus runs, and this process manages nothing: other managers have revoked its key", "error", err)
		return nil
	}
	return err
}

// prepare writes what has to be on the bus before it is worked on.
func (in *instance) prepare(ctx context.Context) error {
	if err := in.manager.Init(ctx); err != nil {
		return err
	}
	if err := in.tellBus(ctx); err != nil {
		return err
	}
	return in.addDefaultGroup(ctx)
}

// startManager runs a manager.
func (in *instance) startManager(ctx context.Context) error {
	if err := in.makeManager(ctx); err != nil {
		return err
	}
	in.status.Manager(in.manager)
	in.status.Add(status.Part{Name: "bus", Check: in.log.Check})
	in.watchDurability()
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { in.manager.Run(run) })
	in.onStop(func() error {
		cancel()
		wg.Wait()
		return nil
	})
	return nil
}

// name is this manager's, for people.
func (in *instance) name() string {
	host, err := os.Hostname()
	if err != nil || event.CheckHost(host) != nil {
		host = "manager"
	}
	return cmp.Or(in.dir.Added(), host)
}

// addDefaultGroup makes the default group known, where its key was made and it
// is not yet.
func (in *instance) addDefaultGroup(ctx context.Context) error {
	keys, err := in.dir.GroupKeys(manager.DefaultGroup)
	if err != nil || len(keys) == 0 {
		return err
	}
	groups, err := in.manager.Groups(ctx)
	if slices.ContainsFunc(groups, func(g *manager.Group) bool { return g.Name == manager.DefaultGroup }) {
		return nil // it may have another key by now
	}
	if err != nil {
		return err
	}
	return in.manager.AddGroup(ctx, manager.DefaultGroup, keys[0].Public())
}

func (in *instance) startHTTP(l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(in.logger.Handler(), slog.LevelDebug),
	}
	in.run("http", l, func() error { return server.Serve(l) })
	in.onStop(func() error { return shutdown("http", server.Shutdown) })
}

// run runs a server, and ends the process if it fails.
func (in *instance) run(what string, l net.Listener, serve func() error) {
	go func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			in.failed <- fmt.Errorf("%s on %s: %w", what, l.Addr(), err)
		}
	}()
}

// shutdown ends a server, and gives requests under way a moment.
func shutdown(what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := f(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stopping %s: %w", what, err)
	}
	return nil
}

// localOnly refuses requests whose Host is a name that a stranger's DNS may
// point at this machine.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		// No browser leaves Host out; what looks after load balancers does.
		if ip := net.ParseIP(host); host != "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this listener answers for localhost only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
