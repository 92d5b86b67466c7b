// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/issuer"
)

func newProxy() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "TLS in front of a plain HTTP service",
		Long: `Ends the TLS of clients in front of one plain HTTP service, with certificates that
are always fresh: from files (--cert, --key), over the bus (--dir), or from a CA,
issued when a client asks for them (--issuer). It speaks HTTP/1.1, HTTP/2 and
WebSocket, and tells the service for whom a request is (X-Forwarded-For, -Host and
-Proto) and, with --client-auth, whose certificate was verified (Client-Cert of
RFC 9440, and X-Client-Identity). Clients cannot send these themselves. Let nobody
reach the service around the proxy.

SIGTERM ends it: /readyz says so at once, connections are taken for --drain-delay,
and requests then have --drain-timeout to end; the exit code is 1 if some had to be
cut off. A second signal ends it at once. A socket of systemd stays open over a
restart, and --reuseport lets a successor take the port over, so that no
connection is refused. SIGHUP reads files anew, as changes of them do.

Every setting is a flag, a variable KEYTURN_PROXY_… (KEYTURN_PROXY_DRAIN_TIMEOUT
for --drain-timeout), or a key of the file given by --config (drain_timeout); flags
count first, the file last. In the file, issuer has the keys that an issuer has in
the shared configuration.`,
		Example: `  keyturn proxy --to localhost:8080 --cert fullchain.pem --key privkey.pem
  keyturn proxy --to localhost:8080 --dir /var/lib/keyturn-replica
  keyturn proxy --to localhost:8080 --issuer vault --issuer-set role=web --name web.internal
  keyturn proxy --config proxy.yaml --check`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := proxyConfig(cmd.Flags(), file)
			if err != nil {
				return err
			}
			if check {
				if err := checkProxy(c); err != nil {
					return err
				}
				return done(cmd, map[string]any{"to": c.To, "listen": c.Listen}, "the settings are good")
			}
			return serveProxy(cmd.Context(), c, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	for _, s := range config.ProxySettings() {
		switch {
		case s.Switch:
			f.Bool(s.Flag(), false, s.Usage)
		case s.List && s.Default != "":
			f.StringArray(s.Flag(), []string{s.Default}, s.Usage)
		case s.List:
			f.StringArray(s.Flag(), nil, s.Usage)
		default:
			f.String(s.Flag(), s.Default, s.Usage)
		}
	}
	f.StringVar(&file, "config", "", "`FILE` with settings ("+config.ProxyConfigVariable+")")
	f.BoolVar(&check, "check", false, "say whether the settings are good, and end")
	completeProxyFlags(cmd)
	return cmd
}

func completeProxyFlags(cmd *cobra.Command) {
	completeFlag(cmd, "issuer", proxyIssuers()...)
	completeFlag(cmd, "client-auth", "none", "request", "require")
	var keys []string
	for _, k := range issuer.KeyTypes() {
		keys = append(keys, string(k))
	}
	completeFlag(cmd, "key-type", keys...)
	completeFlag(cmd, "log-format", "text", "json")
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	for _, dir := range []string{"dir", "cache"} {
		_ = cmd.MarkFlagDirname(dir) // the only error is a flag that does not exist
	}
	for _, file := range []string{"cert", "key", "client-ca", "config"} {
		_ = cmd.MarkFlagFilename(file)
	}
}

// proxyConfig brings flags, variables and file together.
func proxyConfig(flags *pflag.FlagSet, file string) (*config.Proxy, error) {
	if file == "" {
		file = os.Getenv(config.ProxyConfigVariable)
	}
	s := config.ProxySources{Flags: make(map[string][]string), Environ: os.Environ()}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			s.Flags[f.Name] = list.GetSlice()
		} else {
			s.Flags[f.Name] = []string{f.Value.String()}
		}
	})
	if file != "" {
		var err error
		if s.File, err = durable.ReadFile(file, maxLocalConfig); err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
	}
	c, err := s.Proxy()
	var inFile *config.FileError
	switch {
	case errors.As(err, &inFile):
		return nil, fmt.Errorf("the configuration %s: %w", file, err)
	case err != nil:
		return nil, &usageError{err}
	}
	if !c.AdminRemote && c.Admin != "none" {
		if err := checkLoopback("admin", c.Admin); err != nil {
			return nil, fmt.Errorf("%w; --admin-remote serves it all the same", err)
		}
	}
	if slices.Contains(c.Listen, c.Admin) {
		return nil, usagef("--admin and --listen are both %s", c.Admin)
	}
	return c, nil
}
