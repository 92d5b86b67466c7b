// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// groups are the scenarios of groups, their keys and their members.
func groups() []scenario {
	return []scenario{
		{
			name: "group",
			prepare: func(w *world) {
				key, err := seal.GenerateKey()
				must(w.t, err)
				must(w.t, w.m.AddGroup(w.t.Context(), "former", key.Public()))
			},
			act: (*child).regroup,
			check: func(w *world) error {
				list, err := w.m.Groups(w.t.Context())
				if err != nil || len(list) != 2 || list[0].Name != manager.DefaultGroup || list[1].Name != "web" {
					return fmt.Errorf("the groups are %+v, %w", list, err)
				}
				return nil
			},
		},
		{
			name: "join",
			act:  (*child).join,
			check: func(w *world) error {
				members, err := w.m.Members(w.t.Context(), manager.DefaultGroup)
				if err != nil || len(members) != 1 || len(members[0].KeyIDs) != 1 {
					return fmt.Errorf("the members are %+v, %w", members, err)
				}
				return w.opens("host")
			},
		},
		{
			name: "rotate",
			prepare: func(w *world) {
				w.make("a.ca.example", "b.ca.example")
				w.join("host")
				text, err := os.ReadFile(replica.KeyFile(w.dir, manager.DefaultGroup))
				must(w.t, err, os.WriteFile(filepath.Join(w.dir, "before"), text, durable.PrivateFile))
			},
			act: (*child).rotate,
			check: func(w *world) error {
				return errors.Join(w.turned(), at(2, "a.ca.example", "b.ca.example")(w))
			},
		},
		{
			name: "evict",
			prepare: func(w *world) {
				w.make("a.ca.example")
				w.join("host")
			},
			act: func(c *child) error {
				members, err := c.m.Members(c.ctx, "")
				if err != nil {
					return err
				}
				states, err := c.states()
				if err != nil {
					return err
				}
				if states["a.ca.example"].Generation == 1 {
					if _, err := c.m.RevokeMember(c.ctx, members[0].ID); err != nil {
						return err
					}
				}
				return c.pass()
			},
			check: func(w *world) error {
				members, err := w.m.Members(w.t.Context(), "")
				if err != nil || len(members) != 1 || members[0].Revoked.IsZero() {
					return fmt.Errorf("the members are %+v, %w", members, err)
				}
				return at(2, "a.ca.example")(w)
			},
		},
	}
}

// regroup makes a group and removes another.
func (c *child) regroup() error {
	path := replica.KeyFile(c.dir, "web")
	keys, err := seal.ReadPrivateKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var key *seal.PrivateKey
		if key, err = seal.GenerateKey(); err == nil {
			keys = []*seal.PrivateKey{key}
			err = seal.CreatePrivateKeyFile(path, key)
		}
	}
	if err != nil {
		return err
	}
	if err := c.m.AddGroup(c.ctx, "web", keys[0].Public()); err != nil {
		return err
	}
	var none *manager.InvalidError
	if err := c.m.RemoveGroup(c.ctx, "former"); !errors.As(err, &none) {
		return err
	}
	return nil
}

// join lets a host in, as the host and as the manager.
func (c *child) join() error {
	token, err := c.token()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	granting := make(chan error, 1)
	go func() { granting <- c.grantAll(ctx) }()
	_, err = replica.Join(ctx, replica.JoinConfig{Token: token, Dir: filepath.Join(c.dir, "host"), Name: "host", Logger: slog.New(slog.DiscardHandler)})
	cancel()
	if errors.Is(err, replica.ErrJoined) {
		err = nil
	}
	return errors.Join(err, <-granting)
}

// token returns the token of an earlier process, or makes one.
func (c *child) token() (*event.Token, error) {
	file := filepath.Join(c.dir, "token")
	if text, err := os.ReadFile(file); err == nil {
		return event.ParseToken(string(text))
	}
	t, err := c.m.NewToken(c.ctx, manager.DefaultGroup, 0)
	if err != nil {
		return nil, err
	}
	return t, os.WriteFile(file, []byte(t.Encode()), durable.PrivateFile)
}

// grantAll lets in who asks until the context ends, and ends what was begun.
func (c *child) grantAll(ctx context.Context) error {
	for {
		keys, err := c.data.GroupKeys(manager.DefaultGroup)
		if err == nil {
			_, err = c.m.Grant(c.ctx, manager.DefaultGroup, keys)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond): // and another look
		}
	}
}

// join has a host in a directory of the world's join the default group.
func (w *world) join(name string) {
	w.t.Helper()
	c := &child{ctx: w.t.Context(), dir: w.dir, data: datadir.At(w.dir), m: w.m}
	must(w.t, c.join())
}

// rotate gives the default group another key, unless it has.
func (c *child) rotate() error {
	before, err := seal.ReadPrivateKeyFile(filepath.Join(c.dir, "before"))
	if err != nil {
		return err
	}
	path := replica.KeyFile(c.dir, manager.DefaultGroup)
	keys, err := seal.ReadPrivateKeyFile(path)
	if err != nil {
		return err
	}
	if keys[0].Equal(before[0]) {
		key, err := seal.GenerateKey()
		if err != nil {
			return err
		}
		keys = slices.Insert(keys, 0, key)
		if err := seal.WritePrivateKeyFile(path, keys...); err != nil {
			return err
		}
	}
	if err := c.m.RotateGroup(c.ctx, manager.DefaultGroup, keys, event.ReasonGroupKey); err != nil {
		return err
	}
	return c.pass()
}

// turned returns an error unless the default group has the new key, and its member
// that alone.
func (w *world) turned() error {
	keys, err := datadir.At(w.dir).GroupKeys(manager.DefaultGroup)
	if err != nil {
		return err
	}
	list, err := w.m.Groups(w.t.Context())
	if err != nil {
		return err
	}
	members, err := w.m.Members(w.t.Context(), "")
	switch key := keys[0].Public().ID(); {
	case err != nil:
		return err
	case len(keys) != 2 || list[0].Key != key || len(list[0].Retiring) != 0:
		return fmt.Errorf("the group is %+v, and the file has %d keys", list[0], len(keys))
	case len(members) != 1 || !slices.Equal(members[0].KeyIDs, []seal.KeyID{key}):
		return fmt.Errorf("the member has the keys %v, and not %v", members[0].KeyIDs, key)
	}
	return nil
}

// opens returns an error unless a joined directory is all that a replica needs.
func (w *world) opens(name string) error {
	r, err := replica.Open(w.t.Context(), replica.Config{Dir: filepath.Join(w.dir, name), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return r.Close()
}
