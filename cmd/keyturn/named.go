// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/seal"
)

// A naming is what --bus and what goes with it say.
type naming struct{ url, identity, creds string }

// namedAs reads them, and asks nobody.
func namedAs(cmd *cobra.Command) (naming, error) {
	n := naming{busURL(cmd), setting(cmd, "identity"), setting(cmd, "creds", "NATS_CREDS")}
	if n.identity == "" || n.creds == "" && !inDynamoDB(n.url) {
		return n, usagef("--bus needs --identity and, for NATS, --creds (KEYTURN_IDENTITY, KEYTURN_CREDS)")
	}
	if _, err := bus.DriverOf(n.url); err != nil {
		return n, usagef("--bus: %w", err)
	}
	return n, nil
}

// named finds the bus through --bus and what goes with it, which may be files,
// texts in variables, or references to secrets. All of it stands in a directory
// of the command's own while it runs.
func named(ctx context.Context, cmd *cobra.Command) (*place, error) {
	n, err := namedAs(cmd)
	if err != nil {
		return nil, err
	}
	at := &place{hint: "is the URL right, and the server up?"}
	text, from, err := secret.Read(ctx, n.identity)
	if err != nil {
		return nil, fmt.Errorf("the identity: %w", err)
	}
	if at.config.Identity, err = seal.ParseIdentity(text); err != nil {
		return nil, fmt.Errorf("the identity (%s): %w", from, err)
	}
	clear(text)
	at.config.Managers = at.config.Identity.Managers
	if at.dir, err = os.MkdirTemp("", "keyturn-"); err != nil {
		return nil, err
	}
	at.remove = func() { _ = os.RemoveAll(at.dir) } // nobody else can read it
	if at.creds, err = fill(ctx, at.dir, n.url, setting(cmd, "bus-ca"), n.creds); err != nil {
		at.remove()
		return nil, err
	}
	return at, nil
}

// fill writes what bus.OpenDir needs into a directory, and returns where the
// credentials are from.
func fill(ctx context.Context, dir, url, roots, creds string) (from string, err error) {
	files := map[string][]byte{bus.URLFile: []byte(url + "\n")}
	if creds != "" {
		if files[bus.ManagerCreds], from, err = secret.Read(ctx, creds); err != nil {
			return "", fmt.Errorf("the credentials: %w", err)
		}
	}
	if roots != "" {
		text, err := durable.ReadTrusted(roots, 1<<20)
		if err != nil {
			return "", fmt.Errorf("the CA certificates of the bus: %w", err)
		}
		files[bus.RootsFile] = text
	}
	for name, text := range files {
		if err := durable.CreateFile(filepath.Join(dir, name), text, durable.PrivateFile); err != nil {
			return "", err
		}
	}
	return from, nil
}
