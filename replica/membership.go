// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// Membership is what makes a directory a joined one: which member of which
// group it is.
type Membership struct {
	ID string `json:"id"`
	// Name is the host's, for people.
	Name   string `json:"name"`
	Tenant string `json:"tenant"`
	Group  string `json:"group"`
	// Serial is that of the managers that were pinned at the join.
	Serial uint64 `json:"serial"`
}

// ReadMembership returns the membership of a joined directory. The error is
// fs.ErrNotExist where the directory is none.
func ReadMembership(dir string) (*Membership, error) {
	path := filepath.Join(dir, MemberFile)
	text, err := durable.ReadTrusted(path, 4096)
	if err != nil {
		return nil, fmt.Errorf("replica: reading the membership: %w", err)
	}
	m := new(Membership)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("replica: reading the membership %s: %w", path, err)
	}
	if err := errors.Join(event.CheckID(m.ID), event.CheckName(m.Tenant), event.CheckName(m.Group), event.CheckHost(m.Name)); err != nil {
		return nil, fmt.Errorf("replica: reading the membership %s: %w", path, err)
	}
	return m, nil
}

// write makes the directory a joined one.
func (m *Membership) write(dir string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, MemberFile), append(text, '\n'), durable.PrivateFile)
}

// A member is a replica's membership, and the host's own keys.
type member struct {
	*Membership
	host *seal.Identity
}

// readMember returns nil where the directory is not a joined one.
func readMember(dir string) (*member, error) {
	if dir == "" {
		return nil, nil
	}
	m, err := ReadMembership(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	host, err := seal.ReadIdentityFile(filepath.Join(dir, HostFile))
	if err != nil {
		return nil, fmt.Errorf("replica: the host's own keys: %w", err)
	}
	joinDir(dir).tidy()
	return &member{m, host}, nil
}

// place sets the group and the tenant of a joined directory where the program
// names none, and refuses others.
func (m *member) place(c *Config) error {
	if m == nil {
		return nil
	}
	if c.Group != "" && c.Group != m.Group || c.Tenant != "" && c.Tenant != m.Tenant {
		return fmt.Errorf("replica: %s is joined to group %q of tenant %q: leave Config.Group and Config.Tenant empty, or join another directory to that group", c.Dir, m.Group, m.Tenant)
	}
	c.Group, c.Tenant = m.Group, m.Tenant
	return nil
}
