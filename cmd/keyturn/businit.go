// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
)

// Files that "bus accounts" makes.
const (
	accountsFile = "accounts.conf"
	adminFile    = "admin.creds"
	monitorFile  = "monitor.creds"
	secretFile   = "bus.secret"
)

func newBusAccounts() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "accounts DIRECTORY",
		Short: "Make the accounts for NATS servers of your own",
		Long: `Makes what NATS servers of your own, and Keyturn on them, need to know who may
do what, in a new directory:

  accounts.conf   to be included in the configuration of every server; no secret
  admin.creds     may do everything in Keyturn's account: "keyturn bus init nats"
  bus.secret      makes the credentials of managers and replicas: likewise
  monitor.creds   may ask the servers how they write to the disk: --bus-monitor

Who has the first of the secrets reads and writes the bus, which gives away no
private key. Keep them offline once the bus is ready, but for monitor.creds.

With --from they are those of the embedded bus of a data directory: when what stands
there has moved to servers of your own, its managers and replicas log in to these
with the credentials that they have.`,
		Example:           "  keyturn bus accounts nats-accounts\n  keyturn bus accounts nats-accounts --from /var/lib/keyturn",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			make := jetstream.NewAccounts
			if from != "" {
				make = func() (*jetstream.Accounts, error) { return embedded.Accounts(filepath.Join(from, "bus")) }
			}
			if err := makeAccounts(args[0], make); err != nil {
				return err
			}
			return done(cmd, map[string]string{"directory": args[0]}, "%s has the accounts: include %s in the configuration of each server",
				args[0], filepath.Join(args[0], accountsFile))
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "data directory with an embedded bus, whose accounts they are to be")
	return cmd
}

func makeAccounts(dir string, make func() (*jetstream.Accounts, error)) error {
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		return fmt.Errorf("making accounts: %s is not empty, and what is in it may be in use", dir)
	}
	a, err := make()
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(dir); err != nil {
		return fmt.Errorf("making accounts: %w", err)
	}
	for name, make := range map[string]func() ([]byte, error){
		accountsFile: a.Config, adminFile: a.Admin, monitorFile: a.Monitor, secretFile: a.Secret,
	} {
		text, err := make()
		if err != nil {
			return err
		}
		mode := os.FileMode(durable.PrivateFile)
		if name == accountsFile {
			mode = 0o644
		}
		if err := durable.CreateFile(filepath.Join(dir, name), text, mode); err != nil {
			return fmt.Errorf("making accounts: %w", err)
		}
	}
	return nil
}

// natsInit is what "bus init nats" is told.
type natsInit struct {
	url, creds, roots, tenant string
	secret, data              string
	replicas                  int
}

func newBusInitNATS() *cobra.Command {
	var c natsInit
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "nats --bus URL --creds FILE",
		Short: "Make the streams of a tenant on NATS servers of your own",
		Long: `Makes the two streams in which a tenant's log and board lie, and returns when
every copy of them is up to date. Streams that are there stay as they are; if they
have fewer copies than --replicas says, they get more.

With --secret and --data it also makes the data directory of the tenant's first
manager: "keyturn serve --data DIRECTORY" is it, wherever you move that to.`,
		Example: `  keyturn bus accounts nats-accounts
  keyturn bus init nats --bus tls://n1.example:4222,tls://n2.example:4222,tls://n3.example:4222 \
    --creds nats-accounts/admin.creds --secret nats-accounts/bus.secret --data manager1`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.url, c.creds, c.roots = setting(cmd, "bus", "NATS_URL"), setting(cmd, "creds", "NATS_CREDS"), setting(cmd, "bus-ca")
			if err := c.check(timeout); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not done within %v (--timeout)", timeout))
			defer cancel()
			p := newProgress(cmd)
			defer p.end()
			p.say(c.tenant, "waiting until all copies are up to date")
			return c.run(ctx, cmd)
		},
	}
	f := cmd.Flags()
	f.String("bus", "", "URL of the servers, or several with commas (KEYTURN_BUS, NATS_URL)")
	f.String("creds", "", "file of NATS credentials that may make streams (KEYTURN_CREDS, NATS_CREDS)")
	f.String("bus-ca", "", "file of the CA certificates that the servers are known by (KEYTURN_BUS_CA; default: the system's)")
	f.StringVar(&c.tenant, "tenant", manager.DefaultTenant, "namespace on the bus")
	f.IntVar(&c.replicas, "replicas", 0, "copies of each stream: 1, 3 or 5 (default: 3 in a cluster that has so many servers, else 1)")
	f.StringVar(&c.secret, "secret", "", "file of the secret that makes the credentials of managers and replicas, with --data")
	f.StringVar(&c.data, "data", "", "data directory to make for the first manager, with --secret")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this time")
	return cmd
}

func (c *natsInit) check(timeout time.Duration) error {
	if c.url == "" || c.creds == "" {
		return usagef("--bus and --creds are needed: where the servers are, and credentials that may make streams")
	}
	switch c.replicas {
	case 0, 1, 3, 5:
	default:
		return usagef("--replicas is %d: 1, 3 or 5 copies are possible, since an even number survives no more than one fewer", c.replicas)
	}
	if (c.secret == "") != (c.data == "") {
		return usagef("--secret and --data go together: credentials are made for the directory of the first manager")
	}
	if err := event.CheckName(c.tenant); err != nil {
		return usagef("--tenant: %w", err)
	}
	if timeout <= 0 {
		return usagef("--timeout is %v: it has to be above zero", timeout)
	}
	return nil
}

func (c *natsInit) run(ctx context.Context, cmd *cobra.Command) error {
	log, err := jetstream.Connect(jetstream.Options{
		URL: c.url, Creds: c.creds, RootsFile: c.roots, Tenant: c.tenant, Name: "keyturn bus init", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer log.Close()
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := log.Connected(wait); err != nil {
		return unreachable(c.url, err, "is the URL right, and are the servers up?")
	}
	ready, err := log.Init(ctx, c.replicas)
	if err != nil {
		return fmt.Errorf("making the streams of tenant %s: %w", c.tenant, cmp.Or(context.Cause(ctx), err))
	}
	if c.data != "" {
		if err := c.directory(); err != nil {
			return err
		}
	}
	return done(cmd, map[string]any{
		"tenant": c.tenant, "log": ready.ID, "replicas": ready.Replicas, "created": ready.Made, "raised": ready.Raised, "data": c.data,
	}, "tenant %s %s; copies: %d; log %s", c.tenant, c.what(ready), ready.Replicas, ready.ID)
}

// what says in words what was done.
func (c *natsInit) what(r *jetstream.Ready) string {
	switch {
	case r.Made:
		return "has a log now"
	case r.Raised:
		return "has more copies of its log now"
	}
	return "had its log already"
}

// directory makes that of the first manager.
func (c *natsInit) directory() error {
	secret, err := durable.ReadPrivate(c.secret, 4096)
	if err != nil {
		return fmt.Errorf("reading the secret that makes credentials: %w", err)
	}
	mint, err := jetstream.NewMint(secret)
	if err != nil {
		return fmt.Errorf("%s: %w", c.secret, err)
	}
	t := datadir.Tenancy{Tenant: c.tenant, URL: c.url, Secret: secret}
	if t.Creds, err = mint.FirstManager(c.tenant); err != nil {
		return err
	}
	if err := datadir.MakeFirst(c.data, t); err != nil || c.roots == "" {
		return err
	}
	roots, err := durable.ReadTrusted(c.roots, 1<<20)
	if err != nil {
		return fmt.Errorf("the CA certificates of the bus: %w", err)
	}
	return durable.CreateFile(filepath.Join(c.data, bus.RootsFile), roots, durable.PrivateFile)
}
