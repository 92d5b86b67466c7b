// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// A configConflict is an update of a shared configuration that is not the newest
// any more, as --output json prints it.
type configConflict struct {
	After    string    `json:"after"`    // the revision that was to be replaced
	Revision string    `json:"revision"` // the one that stands
	Manager  string    `json:"manager"`  // that wrote it
	Key      string    `json:"key"`
	Time     time.Time `json:"time"`
	// Changes are what the refused text would change of what stands.
	Changes []config.Change `json:"changes"`
}

// explainConflict returns a *configConflict, or why none could be made up.
func explainConflict(ctx context.Context, m *manager.Manager, text []byte, after bus.Position) error {
	now, err := m.Config(ctx)
	if errors.Is(err, manager.ErrNoConfig) {
		return fmt.Errorf("%s is not a revision of the shared configuration: there is none yet", after)
	}
	if err != nil {
		return fmt.Errorf("somebody else has changed the shared configuration since revision %s: %w", after, err)
	}
	c := &configConflict{
		After: after.String(), Revision: now.Position.String(), Key: now.Signer.String(), Time: now.Signed.UTC(),
		Manager: managerName(ctx, m, now.Signer),
	}
	if c.Changes, err = config.Diff(now.Text, text); err != nil {
		return fmt.Errorf("somebody else has changed the shared configuration since revision %s, and it cannot be compared: %w", after, err)
	}
	return c
}

// managerName returns what people call the manager of a key; "" where the bus
// does not tell.
func managerName(ctx context.Context, m *manager.Manager, key seal.KeyID) string {
	set, err := m.Signers(ctx)
	if err != nil {
		return ""
	}
	for i, k := range set.Trusted() {
		if k.ID() == key {
			return set.Keys[i].Name
		}
	}
	return ""
}

// report prints the conflict where JSON is asked for, and returns it.
func (c *configConflict) report(cmd *cobra.Command) error {
	asJSON, err := formatOf(cmd)
	if err != nil {
		return err
	}
	if asJSON {
		if c.Changes == nil {
			c.Changes = []config.Change{}
		}
		return errors.Join(c, printJSON(cmd, c))
	}
	return c
}

func (c *configConflict) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "somebody else has changed the shared configuration: it is not at revision %s any more. Revision %s was written by manager %s at %s.",
		c.After, c.Revision, strings.TrimSpace(c.Manager+" "+c.Key), stamp(c.Time))
	if len(c.Changes) == 0 {
		b.WriteString(" It says what your text says")
	} else {
		b.WriteString(" Of that, your text would change\n")
		for _, change := range c.Changes {
			fmt.Fprintf(&b, "  %s\n", change)
		}
		b.WriteString("which may undo what the other wanted")
	}
	b.WriteString("; get it anew with `keyturn conf display`, and repeat your change")
	return b.String()
}
