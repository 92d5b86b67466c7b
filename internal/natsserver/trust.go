// SPDX-License-Identifier: Apache-2.0

package natsserver

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/internal/durable"
)

// Trust is who may do what on the servers.
type Trust struct {
	// Config is the part of the configuration that says so.
	Config []byte
	// Admin and Monitor are credentials files: of whoever makes streams, and of
	// whoever may ask how the servers write to the disk.
	Admin, Monitor string
	// Secret is what makes the credentials of managers and replicas.
	Secret []byte

	dir string
}

// newTrust makes the accounts, and files of credentials in a directory of the test.
func newTrust(tb testing.TB) *Trust {
	tb.Helper()
	a, err := jetstream.NewAccounts()
	if err != nil {
		tb.Fatal(err)
	}
	t := &Trust{dir: tb.TempDir()}
	admin, err1 := a.Admin()
	monitor, err2 := a.Monitor()
	var err3, err4 error
	t.Secret, err3 = a.Secret()
	t.Config, err4 = a.Config()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		tb.Fatal(err)
	}
	t.Admin, t.Monitor = t.write(tb, "admin.creds", admin), t.write(tb, "monitor.creds", monitor)
	return t
}

func (t *Trust) write(tb testing.TB, name string, text []byte) (path string) {
	tb.Helper()
	path = filepath.Join(t.dir, name)
	if err := durable.WriteFile(path, text, durable.PrivateFile); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Manager makes the credentials file of a manager of a tenant.
func (t *Trust) Manager(tb testing.TB, tenant string) (path string) {
	tb.Helper()
	mint, err := jetstream.NewMint(t.Secret)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := mint.FirstManager(tenant)
	if err != nil {
		tb.Fatal(err)
	}
	return t.write(tb, "manager-"+tenant+".creds", text)
}
