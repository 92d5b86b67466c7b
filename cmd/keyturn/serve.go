// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/durable"
)

// maxLocalConfig bounds the local configuration file, in bytes.
const maxLocalConfig = 256 << 10

// serveConfig is what a serve process is told.
type serveConfig struct {
	config.Local
	dev         bool
	edge        string
	devLifetime time.Duration
	setLifetime bool // it was asked for on the command line
}

func newServe() *cobra.Command {
	var file, devLifetime, edge string
	var dev bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a manager with its bus; --dev shows everything at work",
		Long: `Runs a manager and an embedded, durable bus (NATS JetStream) and renews what is
managed until it is told to stop by SIGINT or SIGTERM. It lets hosts in that hold
a join token, where the key of their group is in the data directory.

The bus listens on loopback until --nats says otherwise; whoever reaches it from
elsewhere does so over TLS, with credentials of his own. Any number of managers
can run on one bus: "keyturn manager add" makes the directory for another, which
finds the bus from there; --bus is for a first manager on a bus elsewhere.

With --dev it needs no configuration, and adds a CA, a replica and an HTTPS edge
whose certificate lives a few minutes only, so that one can watch it turn.
Development state lies apart, and a production instance never takes it.

Every setting is a flag, a variable KEYTURN_… (KEYTURN_LOG_LEVEL for
--log-level), or a key of the file given by --config; flags count first, the
file last.`,
		Example: "  keyturn serve --dev\n  keyturn serve --data /var/lib/keyturn --log-format json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := serveConfig{dev: dev, edge: setting(cmd, "edge"), setLifetime: cmd.Flags().Changed("dev-lifetime")}
			if !dev && (c.edge != "" || c.setLifetime) {
				return usagef("--edge and --dev-lifetime go with --dev")
			}
			if !cmd.Flags().Changed("edge") && c.edge == "" {
				c.edge = edge
			}
			life, err := config.ParseDuration(devLifetime)
			if err != nil {
				return usagef("--dev-lifetime: %w", err)
			}
			if c.devLifetime = time.Duration(life); c.devLifetime < minDevLifetime {
				return usagef("--dev-lifetime is %v: at least %v are needed", c.devLifetime, minDevLifetime)
			}
			local, err := localConfig(cmd.Flags(), file, dev)
			if err != nil {
				return err
			}
			c.Local = *local
			return serve(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&dev, "dev", false, "run everything, with no configuration, for trying out")
	f.StringVar(&devLifetime, "dev-lifetime", "3m", "with --dev: how long the edge's certificate lives")
	f.StringVar(&edge, "edge", "127.0.0.1:8443", "with --dev: loopback address of the HTTPS edge; empty for none")
	f.String("data", "", "data directory (KEYTURN_DATA; default: $XDG_STATE_HOME/keyturn, with --dev keyturn-dev)")
	f.String("http", "127.0.0.1:8080", "loopback address of metrics, health and, with --dev, the page")
	f.String("tenant", "", "namespace on the bus (default: the data directory's, else \"default\")")
	f.String("bus", "", "URL of a bus elsewhere, instead of the embedded one: tls://HOST:PORT or dynamodb://TABLE")
	f.String("bus-monitor", "", "where NATS servers of one's own say how they write to the disk: URLs of their monitoring ports, with commas, or a credentials file of their system account")
	f.String("nats", "127.0.0.1:14222", "address of the embedded bus, with TLS unless it is a loopback address; port 0 picks a free one")
	f.String("tenants", "", "further tenants on the embedded bus, with commas: each gets a data directory in tenants/, for its own manager")
	f.String("advertise", "", "names and addresses by which other hosts reach the embedded bus, with commas (default: those of this machine)")
	f.String("check-in", "", "URL of a dead-man's switch: the manager reports there that it works")
	f.String("check-in-ttl", "15m", "without another report for that long, something is wrong")
	f.String("log-format", "text", "text or json")
	f.String("log-level", "", "debug, info, warn or error (default: info, with --dev warn)")
	f.StringVar(&file, "config", "", "local configuration file (KEYTURN_CONFIG)")
	completeFlag(cmd, "log-format", "text", "json")
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

// localConfig brings flags, variables and file together.
func localConfig(flags *pflag.FlagSet, file string, dev bool) (*config.Local, error) {
	if file == "" {
		file = os.Getenv("KEYTURN_CONFIG")
	}
	s := config.Sources{Flags: make(map[string]string), LookupEnv: os.LookupEnv}
	flags.Visit(func(f *pflag.Flag) { s.Flags[f.Name] = f.Value.String() })
	if file != "" {
		text, err := durable.ReadFile(file, maxLocalConfig)
		if err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
		if s.File, err = config.ParseLocal(text); err != nil {
			return nil, fmt.Errorf("the configuration %s: %w", file, err)
		}
	}
	value := func(name string) string { return flags.Lookup(name).DefValue }
	s.Default = config.Local{
		NATS: value("nats"), HTTP: value("http"), CheckIn: config.CheckIn{TTL: value("check-in-ttl")}, Log: config.Log{Format: value("log-format"), Level: "info"},
	}
	if dev {
		s.Default.Log.Level = "warn"
	}
	c, err := s.Local()
	if err != nil {
		return nil, &usageError{err}
	}
	if c.Data == "" {
		if c.Data, err = config.DataDir(dev, os.LookupEnv); err != nil {
			return nil, err
		}
	}
	c.Data, err = filepath.Abs(c.Data) // it is printed, for use elsewhere
	return c, err
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(strings.ToUpper(c.Level))) // config has checked it
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// serve runs an instance until ctx ends.
func serve(ctx context.Context, c serveConfig, out, errOut io.Writer) (err error) {
	hideMemory()
	logger := newLogger(c.Log, errOut)
	slog.SetDefault(logger)
	in := &instance{config: c, logger: logger, out: out}
	defer func() { err = errors.Join(err, in.stop()) }()
	if err := in.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it was up
		}
		return err
	}
	notify(logger, daemon.SdNotifyReady)
	select {
	case <-ctx.Done():
	case err = <-in.failed:
	}
	notify(logger, daemon.SdNotifyStopping)
	return err
}

// notify tells systemd, where it runs this process.
func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd cannot be notified", "state", state, "error", err)
	}
}
