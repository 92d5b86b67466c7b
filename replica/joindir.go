// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// Names of what only a join under way keeps.
const (
	// requestFile holds the signed request.
	requestFile = "join.request"
	// answerFile holds the newest Member event that was seen: from then on the
	// host logs in as itself, and needs no token's time.
	answerFile = "join.member"
)

// joinDir is a directory that is being joined. Every file in it is written in
// one step, and the host's keys are the first: a directory without them is not
// one that a join left.
type joinDir string

// joinFiles are all that may lie in it.
var joinFiles = []string{
	HostFile, requestFile, answerFile, ManagersFile, groupsDir, bus.URLFile, bus.RootsFile, bus.ReplicaCreds,
}

func (d joinDir) file(name string) string { return filepath.Join(string(d), name) }

// check refuses a directory that is joined already, and one that is something
// else's.
func (d joinDir) check() error {
	switch m, err := ReadMembership(string(d)); {
	case err == nil:
		return fmt.Errorf("%w: %s is member %s (%s) of group %q; give another directory, or remove this one", ErrJoined, d, m.ID, m.Name, m.Group)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if fi, err := os.Stat(string(d)); err == nil && fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("replica: joining: %[1]s has mode %04[2]o: others can put files into it; run: chmod go-w %[1]s", d, fi.Mode().Perm())
	}
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replica: joining: %w", err)
	}
	_, err = os.Stat(d.file(HostFile))
	for _, e := range entries {
		name := e.Name()
		if durable.Temporary(name) {
			continue
		}
		if err != nil || !slices.Contains(joinFiles, name) {
			return fmt.Errorf("replica: joining: %s holds %s, which is something else's: give an empty directory", d, name)
		}
	}
	return nil
}

// host makes the host's own keys, or reads those that are there. The lock keeps
// another join out until it is released.
func (d joinDir) host() (*seal.Identity, *durable.Lock, error) {
	if err := durable.MkdirAll(string(d)); err != nil {
		return nil, nil, fmt.Errorf("replica: joining: making the directory: %w", err)
	}
	path := d.file(HostFile)
	id, err := seal.NewIdentity()
	if err != nil {
		return nil, nil, err
	}
	if err := seal.CreateIdentityFile(path, id); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("replica: joining: the host's own keys: %w", err)
	}
	lock, err := durable.TryLock(path)
	if errors.Is(err, durable.ErrLocked) {
		return nil, nil, fmt.Errorf("replica: joining: another join of %s is under way", d)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("replica: joining: %w", err)
	}
	if id, err = seal.ReadIdentityFile(path); err != nil {
		_ = lock.Release() // the first error is the one to report
		return nil, nil, fmt.Errorf("replica: joining: the host's own keys: %w", err)
	}
	return id, lock, nil
}

// writeBus writes where the bus is and by which roots it is known.
func (d joinDir) writeBus(url string, roots [][]byte) error {
	if err := d.write(bus.URLFile, []byte(url+"\n")); err != nil {
		return err
	}
	if len(roots) == 0 {
		if err := durable.Remove(d.file(bus.RootsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replica: joining: %w", err)
		}
		return nil
	}
	var text bytes.Buffer
	for _, der := range roots {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a bytes.Buffer takes all
	}
	return d.write(bus.RootsFile, text.Bytes())
}

// writeCreds writes the credentials of a bus user, where the engine has any.
func (d joinDir) writeCreds(driver bus.Driver, grant string, secret []byte) error {
	text, err := driver.Credentials(grant, secret)
	if err != nil {
		return fmt.Errorf("replica: joining: the credentials for the bus: %w", err)
	}
	if text == nil {
		return nil
	}
	return d.write(bus.ReplicaCreds, text)
}

// writeKeys writes the group's keys.
func (d joinDir) writeKeys(group string, keys []*seal.PrivateKey) error {
	if err := durable.MkdirAll(d.file(groupsDir)); err != nil {
		return fmt.Errorf("replica: joining: %w", err)
	}
	if err := seal.WritePrivateKeyFile(KeyFile(string(d), group), keys...); err != nil {
		return fmt.Errorf("replica: joining: %w", err)
	}
	return nil
}

// readMember returns what a manager answered an earlier attempt by the same
// token, nil if none did.
func (d joinDir) readMember(j *join) (*event.Member, error) {
	data, err := durable.ReadPrivate(d.file(answerFile), event.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("replica: joining: %w", err)
	}
	m, err := j.openMember(data)
	if err != nil {
		return nil, nil // another token's
	}
	return m, nil
}

// tidy removes what only a join needs. What is left stays until the next start
// without harm.
func (d joinDir) tidy() {
	for _, name := range []string{requestFile, answerFile} {
		_ = durable.Remove(d.file(name))
	}
}

func (d joinDir) write(name string, data []byte) error {
	if err := durable.WriteFile(d.file(name), data, durable.PrivateFile); err != nil {
		return fmt.Errorf("replica: joining: writing %s: %w", name, err)
	}
	return nil
}
