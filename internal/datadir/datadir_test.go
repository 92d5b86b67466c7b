// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/seal"
)

func open(t *testing.T, path, kind string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path, kind)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closeDir(t *testing.T, d *datadir.Dir) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenCompletesAndKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path, datadir.Dev)
	id, err := d.Identity()
	if err != nil {
		t.Fatal(err)
	}
	name, err := d.Instance()
	if err != nil || name == "" {
		t.Fatal(name, err)
	}
	key, err := groupKey(d)
	if err != nil {
		t.Fatal(err)
	}
	closeDir(t, d)

	d = open(t, path, datadir.Dev)
	defer closeDir(t, d)
	again, err := d.Identity()
	if err != nil || !again.Signing.Public().Equal(id.Signing.Public()) || !again.Sealing[0].Equal(id.Sealing[0]) {
		t.Error("another identity", err)
	}
	if n, err := d.Instance(); err != nil || n != name {
		t.Error("another instance", n, err)
	}
	if k, err := groupKey(d); err != nil || !k.Equal(key) {
		t.Error("another group key", err)
	}
	trusted, err := d.Managers()
	if err != nil || len(trusted) != 1 || !trusted[0].Equal(id.Signing.Public()) {
		t.Error("the identity is not the trusted one", err)
	}
	err = filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		fi, infoErr := e.Info()
		if err == nil && infoErr == nil && fi.Mode().Perm()&0o077 != 0 && filepath.Base(file) != "managers.pub" {
			t.Errorf("%s has mode %v", file, fi.Mode())
		}
		return errors.Join(err, infoErr)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOneAtATime(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, datadir.Dev)
	if _, err := datadir.Open(path, datadir.Dev); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("a second one: %v", err)
	}
	closeDir(t, d)
	closeDir(t, open(t, path, datadir.Dev))
}

func TestKindsStayApart(t *testing.T) {
	for _, kind := range []string{datadir.Dev, datadir.Production} {
		path := t.TempDir()
		closeDir(t, open(t, path, kind))
		for _, other := range []string{datadir.Dev, datadir.Production} {
			d, err := datadir.Open(path, other)
			if (err == nil) != (kind == other) {
				t.Errorf("%s opened as %s: %v", kind, other, err)
			}
			if err == nil {
				closeDir(t, d)
			}
		}
	}
}

// TestACrashWhileItIsMade stops the making of a directory after each file.
func TestACrashWhileItIsMade(t *testing.T) {
	for _, missing := range [][]string{
		{"kind", "identity.pem", "managers.pub", "groups"},
		{"identity.pem", "managers.pub", "groups"},
		{"managers.pub", "groups"},
		{"groups"},
		{"groups/default.key"},
	} {
		path := t.TempDir()
		closeDir(t, open(t, path, datadir.Production))
		for _, name := range missing {
			if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
		}
		d := open(t, path, datadir.Production)
		if _, err := groupKey(d); err != nil {
			t.Errorf("without %v: %v", missing, err)
		}
		closeDir(t, d)
	}
}

// TestWhatIsLostIsNotReplaced: in a directory in use, a missing key is an error
// that names it.
func TestWhatIsLostIsNotReplaced(t *testing.T) {
	for _, lost := range []string{"identity.pem", "groups/default.key", "kind", "managers.pub"} {
		path := t.TempDir()
		d := open(t, path, datadir.Production)
		if err := d.SetLogID("log"); err != nil {
			t.Fatal(err)
		}
		closeDir(t, d)
		if err := os.Remove(filepath.Join(path, lost)); err != nil {
			t.Fatal(err)
		}
		if _, err := datadir.Open(path, datadir.Production); err == nil || !strings.Contains(err.Error(), filepath.Base(lost)) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("without %s: %v", lost, err)
		}
		if _, err := os.Stat(filepath.Join(path, lost)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made anew", lost)
		}
	}
}

func TestRunning(t *testing.T) {
	path := t.TempDir()
	d := datadir.At(path)
	if d.Exists() || d.Started() || d.Running() {
		t.Error("an empty directory is in use")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetURL("nats://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if !d.Started() || d.Running() {
		t.Error("what another process listens on runs")
	}
	closeDir(t, open(t, path, datadir.Dev)) // writes this process down
	if !d.Running() {
		t.Error("what listens does not run")
	}
	_ = l.Close()
	if !d.Started() || d.Running() {
		t.Error("what does not listen runs")
	}
	if err := d.SetURL("junk\x00"); err != nil {
		t.Fatal(err)
	}
	if d.Running() {
		t.Error("junk runs")
	}
}

// groupKey is the newest key of the default group.
func groupKey(d *datadir.Dir) (*seal.PrivateKey, error) {
	keys, err := d.GroupKeys("default")
	if err != nil || len(keys) == 0 {
		return nil, errors.Join(err, errors.New("there is no key of the default group"))
	}
	return keys[0], nil
}

// TestMake: a directory made for another host is taken there as it is.
func TestMake(t *testing.T) {
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ops2")
	c := datadir.Contents{
		Name: "ops2", Tenant: "red", Identity: id, Managers: []*seal.VerifyKey{id.Signing.Public()},
		URL: "tls://bus.test:4222", Roots: [][]byte{[]byte("root")}, Creds: []byte("creds\n"),
	}
	if err := datadir.Make(path, c); err != nil {
		t.Fatal(err)
	}
	if err := datadir.Make(path, c); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("made twice: %v", err)
	}
	d := open(t, path, datadir.Production)
	defer closeDir(t, d)
	if !d.Remote() || d.Added() != "ops2" {
		t.Errorf("remote %v, added %q", d.Remote(), d.Added())
	}
	if tenant, err := d.Tenant(); err != nil || tenant != "red" {
		t.Error(tenant, err)
	}
	if err := d.SetTenant("blue"); err == nil || !strings.Contains(err.Error(), `"red"`) {
		t.Errorf("another tenant: %v", err)
	}
	if keys, err := d.GroupKeys("default"); err != nil || keys != nil {
		t.Errorf("it has the default group's key: %v", err)
	}
	err = filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		fi, infoErr := e.Info()
		if err == nil && infoErr == nil && fi.Mode().Perm()&0o077 != 0 && filepath.Base(file) != "managers.pub" {
			t.Errorf("%s has mode %v", file, fi.Mode())
		}
		return errors.Join(err, infoErr)
	})
	if err != nil {
		t.Error(err)
	}
}
