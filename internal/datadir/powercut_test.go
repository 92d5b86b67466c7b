// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/durable/powercut"
	"github.com/keyturn/keyturn/seal"
)

// What a directory has acknowledged.
const (
	opened = 1 + iota // its identity and keys were used
	logged            // its log is known
)

// A start is what one has taken from the directory.
type start struct {
	id       *seal.Identity
	group    *seal.PrivateKey
	instance string
}

// begin opens the directory, which must need nobody's help, and closes it again.
func begin(t *testing.T, dir string) (s start) {
	t.Helper()
	d := open(t, dir, datadir.Production)
	defer closeDir(t, d)
	var err error
	if s.id, err = d.Identity(); err != nil {
		t.Fatal(err)
	}
	if s.group, err = groupKey(d); err != nil {
		t.Fatal(err)
	}
	if s.instance, err = d.Instance(); err != nil {
		t.Fatal(err)
	}
	trusted, err := d.Managers()
	if err != nil || len(trusted) != 1 || !trusted[0].Equal(s.id.Signing.Public()) {
		t.Fatal("the identity is not the trusted one", err)
	}
	return s
}

// TestPowerCut cuts the power while a directory is made and first used, and while a
// second start goes on with what a killed one has left. The next start needs nobody's
// help, and what one has worked with is there.
func TestPowerCut(t *testing.T) {
	work := func(rec *powercut.Recorder, dir, before string) *powercut.Recording {
		was := begin(t, dir)
		rec.Acknowledge(opened)
		if err := datadir.At(dir).SetLogID("the-log"); err != nil {
			t.Fatal(err)
		}
		rec.Acknowledge(logged)
		r := rec.Stop()
		r.Cuts(func(c powercut.Cut) {
			id, err := datadir.At(c.Dir).LogID()
			if err != nil || id != "" && id != "the-log" || id == "" && c.Acknowledged >= logged {
				t.Errorf("%s%s: the log is %q, %v", before, c, id, err)
			}
			is := begin(t, c.Dir)
			if c.Acknowledged >= opened && (!is.id.Signing.Public().Equal(was.id.Signing.Public()) ||
				!is.id.Sealing[0].Equal(was.id.Sealing[0]) || !is.group.Equal(was.group) || is.instance != was.instance) {
				t.Errorf("%s%s: it has another identity, key or name", before, c)
			}
		})
		return r
	}
	dir := powercut.Dir(t)
	work(powercut.Record(t, dir), dir, "").Kills(func(k powercut.Kill) {
		work(k.Record(), k.Dir, "killed after "+k.After+", then ")
	})
}

// TestPowerCutTenant cuts the power while the directory of a tenant's first manager is
// made. Where it is given out it is whole, else it is made anew.
func TestPowerCutTenant(t *testing.T) {
	tenancy := datadir.Tenancy{
		Tenant: "other", URL: "nats://127.0.0.1:4222", Roots: [][]byte{[]byte("root")}, Creds: []byte("creds"), Secret: []byte("secret"),
	}
	given := filepath.Join("bus", "tenants", "other", "given")
	work := func(rec *powercut.Recorder, dir, before string) *powercut.Recording {
		if err := datadir.At(dir).MakeTenant(tenancy); err != nil {
			t.Fatal(err)
		}
		rec.Acknowledge(1)
		r := rec.Stop()
		r.Cuts(func(c powercut.Cut) {
			_, err := os.Stat(filepath.Join(c.Dir, given))
			if err != nil && c.Acknowledged > 0 {
				t.Errorf("%s%s: it is not known to be given out", before, c)
			}
			if err != nil {
				if err := datadir.At(c.Dir).MakeTenant(tenancy); err != nil {
					t.Errorf("%s%s: %v", before, c, err)
				}
			}
			whole(t, before+c.String(), filepath.Join(c.Dir, "tenants", "other"), tenancy)
		})
		return r
	}
	dir := powercut.Dir(t)
	if err := durable.MkdirAll(filepath.Join(dir, filepath.Dir(given))); err != nil { // the bus has
		t.Fatal(err)
	}
	work(powercut.Record(t, dir), dir, "").Kills(func(k powercut.Kill) {
		work(k.Record(), k.Dir, "killed after "+k.After+", then ")
	})
}

// whole wants everything in a tenant's directory.
func whole(t *testing.T, when, dir string, want datadir.Tenancy) {
	t.Helper()
	d := datadir.At(dir)
	url, err := d.URL()
	if err != nil || url != want.URL {
		t.Errorf("%s: the URL is %q, %v", when, url, err)
	}
	if tenant, err := d.Tenant(); err != nil || tenant != want.Tenant {
		t.Errorf("%s: the tenant is %q, %v", when, tenant, err)
	}
	if secret, err := d.BusSecret(); err != nil || !bytes.Equal(secret, want.Secret) {
		t.Errorf("%s: another secret, %v", when, err)
	}
	if roots, err := d.Roots(); err != nil || len(roots) != len(want.Roots) {
		t.Errorf("%s: %d roots, %v", when, len(roots), err)
	}
	if creds, err := fs.ReadFile(os.DirFS(dir), "manager.creds"); err != nil || !bytes.Equal(creds, want.Creds) {
		t.Errorf("%s: other credentials, %v", when, err)
	}
}
