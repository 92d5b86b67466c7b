// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/testnet"
)

// A host is a machine of a network, with one user.
type host struct {
	*sandbox
	*testnet.Host
}

func newHost(t *testing.T, n *testnet.Network, name string) *host {
	t.Helper()
	h := &host{newSandbox(t), n.Host(name)}
	h.data = filepath.Join(h.state, "keyturn")
	h.wrap = h.Command
	return h
}
