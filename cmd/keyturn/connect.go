// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// connectTimeout is how long a command waits for the bus.
const connectTimeout = 5 * time.Second

// addConnectFlags adds what cert and conf need to find the bus and an identity.
func addConnectFlags(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.String("data", "", "data directory of the instance (KEYTURN_DATA; default: that of keyturn serve, or of a dev instance)")
	f.String("nats", "", "URL of the bus on another machine, with --creds and --identity (KEYTURN_NATS, NATS_URL)")
	f.String("creds", "", "NATS credentials file of a manager (KEYTURN_CREDS, NATS_CREDS)")
	f.String("identity", "", "identity file of a manager (KEYTURN_IDENTITY)")
	f.Duration("timeout", 5*time.Minute, "give up after this time; with --renew-all, on each certificate")
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
	limit, _ := cmd.Flags().GetDuration("timeout")
	if limit <= 0 {
		return usagef("--timeout is %v: it has to be above zero", limit)
	}
	ctx, cancel := limited(cmd)
	defer cancel()
	log, c, err := connect(ctx, cmd)
	if err != nil {
		return err
	}
	defer log.Close()
	p := newProgress(cmd)
	defer p.end()
	c.Log, c.Progress = log, p.say
	c.Logger = slog.New(slog.DiscardHandler) // what matters is in the results and the errors
	m, err := manager.New(c)
	if err != nil {
		return err
	}
	err = work(ctx, m)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) != nil {
		return fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return err
}

// busURL returns the URL of a bus elsewhere. KEYTURN_NATS without a scheme is
// the listen address of a keyturn serve, and not meant here.
func busURL(cmd *cobra.Command) string {
	url := setting(cmd, "nats")
	if !cmd.Flags().Changed("nats") && !strings.Contains(url, "://") {
		url = ""
		if setting(cmd, "identity") != "" { // else it is there for other NATS programs
			url = os.Getenv("NATS_URL")
		}
	}
	return url
}

// connect finds the bus and the identity.
func connect(ctx context.Context, cmd *cobra.Command) (*jetstream.Log, manager.Config, error) {
	o := jetstream.Options{
		URL: busURL(cmd), Creds: setting(cmd, "creds", "NATS_CREDS"),
		Name: "keyturn " + cmd.Name(), Logger: slog.New(slog.DiscardHandler),
	}
	identity := setting(cmd, "identity")
	data := setting(cmd, "data")
	var c manager.Config
	var hint string
	// A data directory that is named counts before variables that other NATS
	// programs use, too.
	if cmd.Flags().Changed("nats") && cmd.Flags().Changed("data") {
		return nil, c, usagef("--data and --nats name two places: give one of them")
	}
	if elsewhere := cmd.Flags().Changed("nats") || data == "" && o.URL != ""; elsewhere {
		if o.Creds == "" || identity == "" {
			return nil, c, usagef("--nats needs --creds FILE and --identity FILE")
		}
		hint = "is the URL right, and the server up?"
	} else {
		if cmd.Flags().Changed("creds") || cmd.Flags().Changed("identity") {
			return nil, c, usagef("--creds and --identity go with --nats URL")
		}
		var err error
		if data == "" {
			if data, err = defaultData(); err != nil {
				return nil, c, err
			}
		}
		d := datadir.At(data)
		if !d.Exists() {
			return nil, c, fmt.Errorf("there is no keyturn instance in %s: start one with `keyturn serve --dev`, or say where it is with --data or --nats", data)
		}
		identity = d.File("identity.pem")
		o.Creds = d.File(bus.ManagerCreds)
		if o.URL, err = d.URL(); errors.Is(err, fs.ErrNotExist) {
			return nil, c, fmt.Errorf("no bus was ever started in %s: start `keyturn serve` on it", data)
		} else if err != nil {
			return nil, c, err
		}
		if c.Managers, err = d.Managers(); err != nil {
			return nil, c, err
		}
		hint = fmt.Sprintf("is `keyturn serve` running on %s?", data)
	}
	var err error
	if c.Identity, err = seal.ReadIdentityFile(identity); err != nil {
		return nil, c, err
	}
	log, err := jetstream.Connect(o)
	if err != nil {
		return nil, c, err
	}
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := log.Connected(wait); err != nil {
		log.Close()
		if errors.Is(err, nats.ErrAuthorization) {
			hint = "are these the credentials of this bus?"
		}
		return nil, c, fmt.Errorf("the bus at %s cannot be reached (%w): %s", jetstream.Redact(o.URL), err, hint)
	}
	return log, c, nil
}
