// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/manager"
)

func newConf() *cobra.Command {
	return addConnectFlags(group("conf", "Show and replace the configuration that all managers share",
		`The shared configuration names the issuers and the defaults of new
certificates. It is YAML, lies sealed to the managers on the bus, and may hold
secrets:

  default_issuer: internal
  issuers:
    internal:
      type: local          # the built-in CA
      lifetime: 30d        # of a certificate that asks for none
    public:
      type: acme
      directory: letsencrypt
      terms_agreed: true   # to its terms of service
  solvers:
    dns:
      type: cloudflare     # a wrong type is refused with the list of all
      api_token: TOKEN
  zones:
    example.com: dns       # who shows the CA that names in it are yours
  defaults:
    key: ecdsa-p256
    renew_before: 33%`,
		newConfUpdate(), newConfDisplay()))
}

// revisionComment starts the line that ties a text to the revision it came
// from.
const revisionComment = "# keyturn revision: "

func newConfUpdate() *cobra.Command {
	var after string
	cmd := &cobra.Command{
		Use:   "update < FILE",
		Short: "Replace the shared configuration by YAML from standard input",
		Long: `Replaces the shared configuration by the YAML on standard input. It is checked
first; an unknown key is refused with its name and line.

What "conf display" printed carries its revision in a comment. An update from
such a text, or with --after, is refused if somebody else has changed the
configuration since: it says who and when, and what the text would change of
what stands now. Without either it replaces whatever is the newest.`,
		Example: "  keyturn conf display > conf.yaml\n  $EDITOR conf.yaml\n  keyturn conf update < conf.yaml",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := readConfig(cmd.InOrStdin())
			if err != nil {
				return err
			}
			if len(bytes.TrimSpace(text)) == 0 {
				return errors.New("standard input is empty: `keyturn conf --help` shows what a configuration looks like")
			}
			if after == "" {
				after = revisionOf(text)
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				at, err := updateConfig(ctx, m, text, after)
				var conflict *configConflict
				if errors.As(err, &conflict) {
					return conflict.report(cmd)
				}
				if err != nil {
					return err
				}
				if asJSON, err := formatOf(cmd); err != nil || asJSON {
					return printJSON(cmd, map[string]string{"revision": at.String()})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "the shared configuration is updated, revision %s\n", at)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "only if this revision is still the newest")
	return cmd
}

func readConfig(in io.Reader) ([]byte, error) {
	if isTerminal(in) {
		return nil, usagef("the configuration is read from standard input: keyturn conf update < FILE")
	}
	text, err := io.ReadAll(io.LimitReader(in, config.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), nil // a byte order mark
}

func updateConfig(ctx context.Context, m *manager.Manager, text []byte, after string) (bus.Position, error) {
	_, at, err := m.ConfigText(ctx)
	if err != nil && !errors.Is(err, manager.ErrNoConfig) {
		return at, err
	}
	if after != "" {
		if at, err = bus.ParsePosition(after); err != nil {
			return at, usagef("--after %q is not a revision: `keyturn conf display` prints it", after)
		}
	}
	at, err = m.UpdateConfig(ctx, text, at)
	var conflict *bus.ConflictError
	if errors.As(err, &conflict) {
		return at, explainConflict(ctx, m, text, conflict.After)
	}
	return at, err
}

// revisionOf returns the revision that a text says it came from, or "".
func revisionOf(text []byte) string {
	for line := range strings.Lines(string(text)) {
		if rev, ok := strings.CutPrefix(line, revisionComment); ok {
			return strings.TrimSpace(rev)
		}
	}
	return ""
}

func newConfDisplay() *cobra.Command {
	return &cobra.Command{
		Use:   "display",
		Short: "Print the shared configuration, decrypted",
		Long:  "Prints the shared configuration, decrypted. It may hold secrets: mind who sees the output.",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				text, at, err := m.ConfigText(ctx)
				if err != nil {
					return err
				}
				if asJSON, err := formatOf(cmd); err != nil || asJSON {
					return printJSON(cmd, map[string]string{"revision": at.String(), "config": string(withoutRevision(text)), "warning": "holds secrets"})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n# WARNING: this holds secrets\n%s", revisionComment, at, withoutRevision(text))
				return err
			})
		},
	}
}

// withoutRevision leaves out the comments that an earlier display added.
func withoutRevision(text []byte) []byte {
	for bytes.HasPrefix(text, []byte(revisionComment)) || bytes.HasPrefix(text, []byte("# WARNING: this holds secrets")) {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(bytes.Clone(text), '\n')
	}
	return text
}
