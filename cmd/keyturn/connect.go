// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/solvers"
	"github.com/keyturn/keyturn/manager"
)

// connectTimeout is how long a command waits for the bus.
const connectTimeout = 5 * time.Second

// addConnectFlags adds what cert and conf need to find the bus and an identity.
func addConnectFlags(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.String("data", "", "data directory of the instance (KEYTURN_DATA; default: that of keyturn serve, or of a dev instance)")
	f.String("bus", "", "URL of the bus, with --identity, where there is no data directory (KEYTURN_BUS, NATS_URL)")
	f.String("creds", "", "NATS credentials of a manager: a file, or a reference to a secret (KEYTURN_CREDS, NATS_CREDS)")
	f.String("bus-ca", "", "file of the CA certificates that the bus is known by (KEYTURN_BUS_CA; default: the system's)")
	f.String("bus-monitor", "", "where NATS servers of one's own say how they write to the disk: URLs of their monitoring ports, with commas, or a credentials file of their system account (KEYTURN_BUS_MONITOR; default: monitor.creds of the data directory)")
	f.String("identity", "", "identity of a manager: a file, or a reference to a secret (KEYTURN_IDENTITY)")
	f.String("tenant", "", "namespace on the bus (KEYTURN_TENANT; default: the data directory's)")
	f.Duration("timeout", 5*time.Minute, "give up after this time")
	return cmd
}

// setting returns a flag, or the first of some variables that is set.
func setting(cmd *cobra.Command, flag string, variables ...string) string {
	if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
		return f.Value.String()
	}
	for _, v := range append([]string{config.Variable(flag)}, variables...) {
		if s := os.Getenv(v); s != "" {
			return s
		}
	}
	return ""
}

// defaultData returns the data directory where none is named: that of the
// instance that runs, keyturn serve's before the dev instance's; if neither
// runs, keyturn serve's if it ever did.
func defaultData() (string, error) {
	production, err := config.DataDir(false, os.LookupEnv)
	if err != nil {
		return "", err
	}
	dev, err := config.DataDir(true, os.LookupEnv)
	switch {
	case err != nil:
		return "", err
	case datadir.At(production).Running(), !datadir.At(dev).Running() && datadir.At(production).Started():
		return production, nil
	}
	return dev, nil
}

// limited is the command's context with --timeout.
func limited(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	limit, _ := cmd.Flags().GetDuration("timeout")
	return context.WithTimeoutCause(cmd.Context(), limit, fmt.Errorf("not done within %v (--timeout)", limit))
}

// withManager runs work with a manager on the bus that the flags name.
func withManager(cmd *cobra.Command, work func(context.Context, *manager.Manager) error) error {
	return withBus(cmd, func(ctx context.Context, m *manager.Manager, _ bus.Conn) error { return work(ctx, m) })
}

// withBus is withManager for what needs the bus itself, too.
func withBus(cmd *cobra.Command, work func(context.Context, *manager.Manager, bus.Conn) error) error {
	limit, _ := cmd.Flags().GetDuration("timeout")
	if limit <= 0 {
		return usagef("--timeout is %v: it has to be above zero", limit)
	}
	ctx, cancel := limited(cmd)
	defer cancel()
	p := newProgress(cmd)
	defer p.end()
	m, conn, closeBus, err := connect(ctx, cmd, p)
	if err != nil {
		return err
	}
	defer closeBus()
	err = work(ctx, m, conn)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// busURL returns the URL of a bus that is named, "" where none is. NATS_URL is
// there for other programs, too, and counts only beside an identity.
func busURL(cmd *cobra.Command) string {
	url := setting(cmd, "bus")
	if url == "" && setting(cmd, "identity") != "" {
		url = os.Getenv("NATS_URL")
	}
	return url
}

// dataOf returns the data directory that the flags name, or the default one; ""
// where the bus is named instead.
func dataOf(cmd *cobra.Command) (string, error) {
	data := setting(cmd, "data")
	switch {
	case cmd.Flags().Changed("bus") && cmd.Flags().Changed("data"):
		return "", usagef("--data and --bus name two places: give one of them")
	case cmd.Flags().Changed("bus"):
		return "", nil
	case data != "":
		return data, nil // counts before variables that other NATS programs use, too
	case busURL(cmd) != "":
		return "", nil
	}
	return defaultData()
}

// A place is where a command finds its bus.
type place struct {
	dir    string // with what bus.OpenDir needs
	remove func() // what is only there for the command
	hint   string // where the bus cannot be reached
	config manager.Config
	creds  string // where the credentials are from, if not from dir
}

// connect finds the bus and the identity.
func connect(ctx context.Context, cmd *cobra.Command, p *progress) (*manager.Manager, bus.Conn, func(), error) {
	data, err := dataOf(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	find := named
	if data != "" {
		find = func(_ context.Context, cmd *cobra.Command) (*place, error) { return inData(cmd, data) }
	}
	at, err := find(ctx, cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	quiet := slog.New(slog.DiscardHandler) // what matters is in the results and the errors
	if tenant := setting(cmd, "tenant"); tenant != "" {
		if err := event.CheckName(tenant); err != nil {
			at.remove()
			return nil, nil, nil, usagef("--tenant: %w", err)
		}
		at.config.Tenant = tenant
	}
	conn, err := bus.OpenDir(at.dir, bus.Options{
		Creds: bus.ManagerCreds, Monitor: setting(cmd, "bus-monitor"), Tenant: at.config.Tenant, Name: "keyturn " + cmd.Name(), Logger: quiet,
	})
	if err != nil {
		at.remove()
		if at.creds != "" {
			err = fmt.Errorf("with the credentials of %s: %w", at.creds, err)
		}
		return nil, nil, nil, err
	}
	end := func() {
		conn.Close()
		at.remove()
	}
	wait, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no answer came within %v", connectTimeout))
	defer cancel()
	if err := conn.Connected(wait); err != nil {
		url, _ := bus.ReadURL(at.dir) // it could be opened
		end()
		return nil, nil, nil, unreachable(url, err, at.hint)
	}
	c := at.config
	if c.Every, err = timer(cmd); err != nil {
		end()
		return nil, nil, nil, err
	}
	c.Log, c.Progress, c.Logger, c.Mint, c.Solvers = conn, p.say, quiet, mint, solvers.With(quiet)
	if r, ok := conn.(revoker); ok {
		c.Revoked = func(users []string) {
			if err := r.Revoke(ctx, users); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: who is revoked may still reach the bus, until a manager that runs on it sees to that: %v\n", err)
			}
		}
	}
	m, err := manager.New(c)
	if err != nil {
		end()
		return nil, nil, nil, err
	}
	return m, conn, end, nil
}

// unreachable says that the bus cannot be reached, and what to do; DynamoDB's
// errors say that themselves.
func unreachable(url string, err error, hint string) error {
	if errors.Is(err, nats.ErrAuthorization) {
		hint = "are these the credentials of this bus?"
	}
	if inDynamoDB(url) {
		return fmt.Errorf("the bus at %s cannot be reached: %w", url, err)
	}
	return fmt.Errorf("the bus at %s cannot be reached (%w): %s", jetstream.Redact(url), err, hint)
}

// inDynamoDB reports whether the bus is a table, where AWS knows who everybody is.
func inDynamoDB(url string) bool { return strings.HasPrefix(url, dynamodb.Scheme+"://") }

// timer is how often a command comes that a timer starts.
func timer(cmd *cobra.Command) (time.Duration, error) {
	f := cmd.Flags().Lookup("every")
	if f == nil {
		return 0, nil
	}
	d, err := config.ParseDuration(cmp.Or(setting(cmd, "every"), f.Value.String()))
	if err != nil {
		return 0, usagef("--every: %w", err)
	}
	return time.Duration(d), nil
}

// mint makes NATS credentials. Other engines have their own, and keep no secret
// on the bus to make any with.
func mint(secret []byte) (manager.Credentials, error) { return jetstream.NewMint(secret) }

// inData finds the bus through a data directory.
func inData(cmd *cobra.Command, data string) (*place, error) {
	if cmd.Flags().Changed("creds") || cmd.Flags().Changed("identity") || cmd.Flags().Changed("bus-ca") {
		return nil, usagef("--creds, --bus-ca and --identity go with --bus URL")
	}
	d := datadir.At(data)
	if !d.Exists() {
		return nil, fmt.Errorf("there is no keyturn instance in %s: start one with `keyturn serve --dev`, or say where it is with --data or --bus", data)
	}
	at := &place{dir: data, remove: func() {}, hint: fmt.Sprintf("is `keyturn serve` running on %s?", data)}
	if d.Remote() {
		at.hint = "is it up, and can this host reach it?"
	}
	if !d.Started() {
		return nil, fmt.Errorf("no bus was ever started in %s: start `keyturn serve` on it", data)
	}
	var err error
	if at.config.Tenant, err = d.Tenant(); err != nil {
		return nil, err
	}
	if at.config.Managers, err = d.Managers(); err != nil {
		return nil, err
	}
	if at.config.Identity, err = d.Identity(); err != nil {
		return nil, err
	}
	if at.config.Chain, err = d.ManagerChain(); err != nil {
		return nil, fmt.Errorf("the list of managers that was seen last: %w", err)
	}
	at.config.Learnt = func(chain []byte) {
		if err := d.SetManagerChain(chain); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: who the managers are could not be written down in %s: %v\n", data, err)
		}
	}
	at.config.Keys = d.GroupKeys
	return at, nil
}
