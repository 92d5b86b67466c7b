// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
)

func newReplica() *cobra.Command {
	return group("replica", "Let hosts join a group, list them, take their rights away",
		`A replica is a group's state inside a process on some host: a server that embeds
package replica, or a load balancer's agent. A host joins once, by a token, and
gets what it needs in one directory: its own keys, credentials for the bus that
reach no further than its group, and the group's key.

  on a manager's host     keyturn replica token web
  on the other host       keyturn replica join - --dir /var/lib/keyturn-replica < token`,
		newReplicaToken(), newReplicaJoin(), newReplicaLs(), newReplicaRevoke())
}

// tokenLifetime is how long a join token is good for unless asked otherwise.
const tokenLifetime = 15 * time.Minute

func newReplicaToken() *cobra.Command {
	var lifetime string
	cmd := addConnectFlags(groupName(&cobra.Command{
		Use:   "token GROUP",
		Short: "Print a token by which one host can join a group, once",
		Long: `Prints a join token: one host can join the group by it, once, within 15 minutes.
It pins the managers' signing keys and the bus. It is a secret until it expires:
carry it as you would a password. If the host finds it used, somebody else joined:
"keyturn replica ls" shows who, to be revoked.`,
		Example: "  keyturn replica token web | ssh lb1 keyturn replica join - --dir /var/lib/keyturn-replica",
		RunE: func(cmd *cobra.Command, names []string) error {
			life, err := config.ParseDuration(lifetime)
			if err != nil {
				return usagef("--lifetime: %w", err)
			}
			if d := time.Duration(life); d < manager.MinTokenLifetime || d > manager.MaxTokenLifetime {
				return usagef("--lifetime is %s: 1m to 24h are possible", life)
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				t, err := m.NewToken(ctx, names[0], time.Duration(life))
				if err != nil {
					return err
				}
				noteLoopback(cmd, t.URLs)
				return done(cmd, map[string]any{"id": t.ID, "group": t.Group, "expires": t.Expires.UTC(), "token": t.Encode()}, "%s", t.Encode())
			})
		},
	}))
	cmd.Flags().StringVar(&lifetime, "lifetime", config.Duration(tokenLifetime).String(), "how long it can be used: 1m to 24h")
	return cmd
}

// noteLoopback says that other hosts do not reach the bus, where that is so.
func noteLoopback(cmd *cobra.Command, urls []string) {
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() {
			return
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "note: the bus at %s is for this machine alone; for others start `keyturn serve` with --nats HOST:PORT\n", strings.Join(urls, ","))
}

func newReplicaJoin() *cobra.Command {
	var dir, name string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "join TOKEN|-",
		Short: "Join a group with this host, by a token",
		Long: `Joins a group. The host makes its own keys, sends their public halves, signed by
the token, and gets credentials for the bus, which reach no further than its
group, and the group's key, sealed to the host. All of it lies in --dir, from
where a program serves:

  replica.Open(ctx, replica.Config{Dir: dir})

A manager has to be there to answer: a running "keyturn serve", or somebody who
runs "keyturn group grant". Interrupted at any point, the same command with the
same token goes on. "-" reads the token from standard input: as an argument it stands
in the list of processes and in the shell's history. KEYTURN_TOKEN holds it, too.`,
		Example:           "  keyturn replica join - --dir /var/lib/keyturn-replica < token",
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(_ *cobra.Command, tokens []string) error {
			if len(tokens) > 1 {
				return usagef("one TOKEN, not %d: it is a single word", len(tokens))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, tokens []string) error {
			text, err := tokenText(cmd.InOrStdin(), tokens)
			if err != nil {
				return err
			}
			token, err := event.ParseToken(text)
			if err != nil {
				return usagef("%w: `keyturn replica token GROUP` prints one, in one long line", err)
			}
			if timeout <= 0 {
				return usagef("--timeout is %v: it has to be above zero", timeout)
			}
			if dir == "" {
				if dir, err = config.ReplicaDir(os.LookupEnv); err != nil {
					return err
				}
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not done within %v (--timeout)", timeout))
			defer cancel()
			p := newProgress(cmd)
			defer p.end()
			m, err := replica.Join(ctx, replica.JoinConfig{
				Token: token, Dir: dir, Name: name, Logger: newLogger(config.Log{Level: "warn"}, cmd.ErrOrStderr()), Progress: func(what string) { p.say(token.ID, what) },
			})
			if err != nil {
				if cause := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) && cause != nil {
					return fmt.Errorf("%w: %w", cause, err)
				}
				return err
			}
			return done(cmd, map[string]string{"id": m.ID, "name": m.Name, "group": m.Group, "tenant": m.Tenant, "dir": dir},
				"%s (%s) is a replica of group %s; serve from %s", m.ID, m.Name, m.Group, dir)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory to join with (default: $XDG_STATE_HOME/keyturn-replica)")
	f.StringVar(&name, "name", "", "name of this host, for people (default: its host name)")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this time")
	return cmd
}

// tokenText returns the token from the argument, standard input or the
// environment.
func tokenText(in io.Reader, tokens []string) (string, error) {
	switch {
	case len(tokens) == 1 && tokens[0] != "-":
		return tokens[0], nil
	case len(tokens) == 0:
		if text := os.Getenv("KEYTURN_TOKEN"); text != "" {
			return text, nil
		}
		return "", usagef("a TOKEN is needed, or - for standard input: `keyturn replica token GROUP` prints one")
	}
	text, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return string(text), nil
}

// memberRow is a member in lists.
type memberRow struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Group   string     `json:"group"`
	State   string     `json:"state"` // "granted", "waiting" or "revoked"
	Joined  time.Time  `json:"joined"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

func memberOf(m *manager.Member) memberRow {
	r := memberRow{ID: m.ID, Name: m.Name, Group: m.Group, State: "granted", Joined: m.Joined.UTC()}
	switch {
	case !m.Revoked.IsZero():
		at := m.Revoked.UTC()
		r.State, r.Revoked = "revoked", &at
	case len(m.Keys) == 0:
		r.State = "waiting"
	}
	return r
}

func newReplicaLs() *cobra.Command {
	return addConnectFlags(&cobra.Command{
		Use:     "ls [GROUP]",
		Aliases: []string{"list"},
		Short:   "List the hosts that joined",
		Long: `Lists the hosts that joined. "waiting" means that nobody who holds the group's
key has granted it yet. "keyturn status" shows what each serves.`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeGroups,
		RunE: func(cmd *cobra.Command, names []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				if len(names) == 1 {
					if _, err := findGroup(ctx, m, names[0]); err != nil {
						return err
					}
				}
				list, err := m.Members(ctx, strings.Join(names, ""))
				if err != nil {
					return err
				}
				out := make([]memberRow, 0, len(list))
				for _, member := range list {
					out = append(out, memberOf(member))
				}
				return printList(cmd, out, []string{"Id", "Host", "Group", "State", "Joined"}, func(r memberRow) []string {
					state := r.State
					if r.Revoked != nil {
						state += " " + stamp(*r.Revoked)
					}
					return []string{r.ID, r.Name, r.Group, state, stamp(r.Joined)}
				})
			})
		},
	})
}

func newReplicaRevoke() *cobra.Command {
	return addKeyFlag(addConnectFlags(&cobra.Command{
		Use:   "revoke ID|HOST",
		Short: "Take a host's rights away",
		Long: `Takes a host's rights away: its connection to the bus ends, and it reads nothing
that is published from then on. It knew the group's key and the private keys of
the group's certificates, so these are marked to be made anew, and, where the
group's key is at hand, the group gets a new one. A running "keyturn serve"
makes what is marked; "keyturn cert renew --group GROUP" does it at once.

On DynamoDB it is AWS that lets hosts in: take the host's user or role away there.`,
		ValidArgsFunction: completeMembers,
		Args: func(_ *cobra.Command, ids []string) error {
			if len(ids) != 1 {
				return usagef("one ID, or HOST, is needed, not %d: `keyturn replica ls` lists them", len(ids))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				member, err := m.FindMember(ctx, ids[0])
				if err != nil {
					return err
				}
				r, err := m.RevokeMember(ctx, member.ID)
				if err != nil {
					return err
				}
				noteAWS(cmd, member.User)
				out := revocation{ID: member.ID, Group: member.Group, Marked: r.Marked}
				if out.KeyRotated, err = afterRevoke(ctx, cmd, m, member.Group); err != nil {
					return fmt.Errorf("%s is revoked, but the group's key could not be turned: %w", member.ID, err)
				}
				key := "has a new key"
				if !out.KeyRotated {
					key = "still has the key that the host knew"
				}
				return done(cmd, out, "%s (%s) is revoked; %s of group %s marked to be made anew; the group %s",
					member.ID, member.Name, plural.Of(r.Marked, "certificate"), member.Group, key)
			})
		},
	}))
}

// noteAWS says who has to take access to the bus away where Keyturn granted none.
func noteAWS(cmd *cobra.Command, user string) {
	if user == "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: AWS still lets it in to the table: take away its user or role, or its key if others share them")
	}
}

// revocation is what came of taking a host's rights away.
type revocation struct {
	ID         string `json:"id"`
	Group      string `json:"group"`
	Marked     int    `json:"marked"`      // certificates that are made anew
	KeyRotated bool   `json:"key_rotated"` // false: turn it where the key file is
}

// afterRevoke turns the group's key where it is at hand, and says what to do
// where it is not.
func afterRevoke(ctx context.Context, cmd *cobra.Command, m *manager.Manager, group string) (rotated bool, err error) {
	if _, _, err := groupKeys(cmd, group); err != nil {
		_, err := fmt.Fprintf(cmd.ErrOrStderr(),
			"note: the host knew the key of group %s; where the file of that key is, run: keyturn group key rotate %s --reason %s\n", group, group, event.ReasonCompromised)
		return false, err
	}
	_, _, err = rotateGroup(ctx, cmd, m, group, event.ReasonCompromised)
	return err == nil, err
}
