// SPDX-License-Identifier: Apache-2.0

// Package datadir lays out the data directory: the one place where a process
// keeps its identity, its keys and its files, and where other commands of the
// same machine find them.
//
//	lock               held by the running `keyturn serve`
//	kind               "dev" or "production": neither takes the other's
//	identity.pem       the manager's signing key, the managers' sealing keys
//	managers.pub       the signing keys that replicas trust
//	managers.event     the newest list of managers that was seen on the bus
//	groups/NAME.key    the private keys of groups
//	instance           the name of this manager over restarts
//	tenant             the namespace on the bus
//	added              the name that another manager gave to this one, which it made
//	bus/               the embedded bus: keys and JetStream files
//	snapshot/          what stands on the bus, to rebuild it from, and its keys, sealed
//	bus.url            where the bus is; the embedded one writes it at every start
//	bus.ca             the CA certificates that it is known by
//	bus.secret         what makes a tenant's credentials, in a directory from tenants/
//	tenants/NAME/      the directory for the first manager of another tenant
//	bus.id             the id of its log, so that a lost one is noticed
//	manager.creds      how a manager logs in to it
//	monitor.creds      how NATS servers of one's own are asked how they write to the disk
//	ca.pem             the root of the development CA
//	joined/NAME/       the joined directories of the development instance
//
// Everything is private to its owner. What exists is never replaced by
// something new: a missing piece of a directory in use is an error.
package datadir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// Kinds of data directories.
const (
	Production = "production"
	Dev        = "dev"
)

// Snapshot is the directory of what the bus is rebuilt from.
const Snapshot = "snapshot"

// maxSmall bounds the files that hold one line.
const maxSmall = 4096

// A Dir is a data directory.
type Dir struct {
	path string
	lock *durable.Lock // of Open
}

// At returns the directory at path for reading what a running instance keeps
// there. It touches nothing.
func At(path string) *Dir { return &Dir{path: path} }

// Open makes the directory if need be, locks it, and completes it. The errors
// say in words what to do: another process has it, or it is of the other kind.
func Open(path, kind string) (_ *Dir, err error) {
	if err := durable.MkdirAll(path); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	if mode := fi.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("the data directory %s has mode %04o: others can put files into it; run: chmod go-w %s", path, mode, path)
	}
	d := &Dir{path: path}
	if d.lock, err = durable.TryLock(d.File("lock")); err != nil {
		if errors.Is(err, durable.ErrLocked) {
			return nil, fmt.Errorf("the data directory %s is in use by another keyturn serve%s: stop that one, or choose another directory with --data", path, d.holder())
		}
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err = d.complete(kind); err != nil {
		_ = d.lock.Release() // the first error is the one to report
		return nil, err
	}
	return d, nil
}

// Close gives the lock up.
func (d *Dir) Close() error { return d.lock.Release() }

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// File returns the path of a file in it.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// Exists reports whether there is an initialised directory.
func (d *Dir) Exists() bool {
	_, err := os.Stat(d.File("identity.pem"))
	return err == nil
}

// Started reports whether the directory knows a bus: one ever ran in it, or it
// is told where one is.
func (d *Dir) Started() bool {
	_, err := d.URL()
	return err == nil
}

// Running reports whether an instance runs on the directory: its process is
// there, and something listens where it said that its bus does.
func (d *Dir) Running() bool {
	pid, err := strconv.Atoi(d.pid())
	if err != nil || pid <= 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	text, err := d.URL()
	if err != nil {
		return false
	}
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	c, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was said
	return true
}

// holder names the process that holds the lock, as it wrote itself down.
func (d *Dir) holder() string {
	if pid := d.pid(); pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}

// pid is that of the newest instance, "" where there was none.
func (d *Dir) pid() string {
	b, err := durable.ReadFile(d.File("pid"), maxSmall)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (d *Dir) complete(kind string) error {
	if err := d.checkKind(kind); err != nil {
		return err
	}
	if err := durable.WriteFile(d.File("pid"), []byte(strconv.Itoa(os.Getpid())+"\n"), durable.PrivateFile); err != nil {
		return fmt.Errorf("writing to the data directory: %w", err)
	}
	if err := d.identity(); err != nil {
		return err
	}
	if d.Added() != "" {
		return nil // the groups' keys are where they were made
	}
	return d.group(replica.DefaultGroup)
}

// Kind returns Dev or Production, as the directory says.
func (d *Dir) Kind() (string, error) {
	b, err := durable.ReadFile(d.File("kind"), maxSmall)
	if err != nil {
		return "", fmt.Errorf("reading the kind of the data directory: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (d *Dir) checkKind(kind string) error {
	b, err := durable.ReadFile(d.File("kind"), maxSmall)
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.Exists():
		return fmt.Errorf("%s holds an identity but does not say of which kind it is: its file \"kind\" is missing; restore it (%q or %q)", d.path, Dev, Production)
	case errors.Is(err, fs.ErrNotExist):
		err = durable.WriteFile(d.File("kind"), []byte(kind+"\n"), durable.PrivateFile)
	case err == nil && strings.TrimSpace(string(b)) != kind:
		if kind == Production {
			return fmt.Errorf("%s was made by `keyturn serve --dev`: its CA and keys are for development only; choose another directory with --data, or start with --dev", d.path)
		}
		return fmt.Errorf("%s holds a production instance: --dev does not touch it; choose another directory with --data", d.path)
	}
	if err != nil {
		return fmt.Errorf("reading the kind of the data directory: %w", err)
	}
	return nil
}

// identity makes the identity of a new directory, and the file that replicas
// trust it by.
func (d *Dir) identity() error {
	id, err := d.Identity()
	if errors.Is(err, fs.ErrNotExist) {
		if d.used() {
			return fmt.Errorf("%s is missing, and what is on the bus can be opened and continued with it only: restore it from a back-up", d.File("identity.pem"))
		}
		if id, err = seal.NewIdentity(); err != nil {
			return err
		}
		err = seal.CreateIdentityFile(d.File("identity.pem"), id)
		if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if _, err := d.Managers(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d.used() {
		return fmt.Errorf("%s is missing, and it alone says which managers are trusted: restore it from a back-up", d.File(replica.ManagersFile))
	}
	return seal.WriteVerifyKeyFile(d.File(replica.ManagersFile), id.Signing.Public())
}

// used reports whether there was ever a log: what is missing now was lost.
func (d *Dir) used() bool {
	_, err := os.Stat(d.File("bus.id"))
	return err == nil
}

func (d *Dir) group(name string) error {
	path := replica.KeyFile(d.path, name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if d.used() {
		return fmt.Errorf("%s is missing, and the certificates on the bus are sealed to it: restore it from a back-up", path)
	}
	if err := durable.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	key, err := seal.GenerateKey()
	if err != nil {
		return err
	}
	return seal.CreatePrivateKeyFile(path, key)
}

// Identity reads the manager's identity.
func (d *Dir) Identity() (*seal.Identity, error) {
	return seal.ReadIdentityFile(d.File("identity.pem"))
}

// Managers reads the trusted signing keys.
func (d *Dir) Managers() ([]*seal.VerifyKey, error) {
	return seal.ReadVerifyKeyFile(d.File(replica.ManagersFile))
}

// managersEvent is the file of the newest list of managers that was seen on the
// bus.
const managersEvent = "managers.event"

// ManagerChain returns the newest list of managers that was seen on the bus, nil
// if none was.
func (d *Dir) ManagerChain() ([]byte, error) {
	data, err := durable.ReadTrusted(d.File(managersEvent), event.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SetManagerChain keeps the newest list of managers.
func (d *Dir) SetManagerChain(data []byte) error {
	return durable.WriteFile(d.File(managersEvent), data, durable.PrivateFile)
}

// GroupKeys reads the private keys of a group, the newest first. None is no
// error: they are elsewhere.
func (d *Dir) GroupKeys(name string) ([]*seal.PrivateKey, error) {
	keys, err := seal.ReadPrivateKeyFile(replica.KeyFile(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

// Added returns the name that another manager gave to this one when it made the
// directory, or "".
func (d *Dir) Added() string {
	b, err := durable.ReadFile(d.File("added"), maxSmall)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Remote reports whether the bus is elsewhere: its address is known, and it does
// not lie here.
func (d *Dir) Remote() bool {
	_, err := os.Stat(d.File("bus"))
	return d.Started() && errors.Is(err, fs.ErrNotExist)
}

// Tenant returns the namespace on the bus; "" in a directory that says none.
func (d *Dir) Tenant() (string, error) {
	b, err := durable.ReadFile(d.File("tenant"), maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// SetTenant keeps the namespace on the bus. It stays what it is: another one is
// an error.
func (d *Dir) SetTenant(name string) error {
	had, err := d.once("tenant", func() ([]byte, error) { return []byte(name + "\n"), nil })
	if err == nil && had != name {
		err = fmt.Errorf("the data directory %s is tenant %q's, not %q's: choose another with --data", d.path, had, name)
	}
	return err
}

// Instance returns the name of this manager, made at the first call.
func (d *Dir) Instance() (string, error) {
	return d.once("instance", func() ([]byte, error) { return []byte(rand.Text() + "\n"), nil })
}

// SetRoots keeps the CA certificates (PEM) that the bus is known by.
func (d *Dir) SetRoots(pem []byte) error {
	return durable.WriteFile(d.File(bus.RootsFile), pem, durable.PrivateFile)
}

// Creds writes credentials made by create under name, unless they are there.
func (d *Dir) Creds(name string, create func() ([]byte, error)) error {
	_, err := d.once(name, create)
	return err
}

// once returns the file's text, made and kept at the first call.
func (d *Dir) once(name string, create func() ([]byte, error)) (string, error) {
	b, err := durable.ReadPrivate(d.File(name), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = create(); err == nil {
			err = durable.CreateFile(d.File(name), b, durable.PrivateFile)
		}
	}
	if err != nil {
		return "", fmt.Errorf("data directory: %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// URL returns where the embedded bus listens, or did when it last ran.
func (d *Dir) URL() (string, error) { return bus.ReadURL(d.path) }

// SetURL tells others where the embedded bus listens.
func (d *Dir) SetURL(url string) error {
	return durable.WriteFile(d.File(bus.URLFile), []byte(url+"\n"), durable.PrivateFile)
}

// LogID returns the id of the embedded bus's log, "" before there was one.
func (d *Dir) LogID() (string, error) {
	b, err := durable.ReadFile(d.File("bus.id"), maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// SetLogID keeps the id of the embedded bus's log.
func (d *Dir) SetLogID(id string) error {
	return durable.WriteFile(d.File("bus.id"), []byte(id+"\n"), durable.PrivateFile)
}

// WriteRoot writes the CA certificate that clients of the edge trust.
func (d *Dir) WriteRoot(pem []byte) error {
	return durable.WriteFile(d.File("ca.pem"), pem, 0o644)
}
