// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// Contents are what a manager on another host starts with.
type Contents struct {
	Name     string
	Tenant   string
	Identity *seal.Identity
	Managers []*seal.VerifyKey
	// URL is where the bus is, Roots the CA certificates (DER) that it is known by,
	// and Creds how the manager logs in to it, nil where that is not by a file.
	URL   string
	Roots [][]byte
	Creds []byte
}

// Make makes a data directory for a manager on another host. The directory must
// not exist, or be empty.
func Make(path string, c Contents) error {
	if old, err := os.ReadDir(path); err == nil && len(old) > 0 {
		return fmt.Errorf("making a manager's directory: %s is not empty", path)
	}
	if err := durable.MkdirAll(path); err != nil {
		return fmt.Errorf("making a manager's directory: %w", err)
	}
	d := At(path)
	c.Identity.Managers = c.Managers // the file alone is enough, where there is no directory
	errs := []error{
		seal.CreateIdentityFile(d.File("identity.pem"), c.Identity),
		seal.WriteVerifyKeyFile(d.File(replica.ManagersFile), c.Managers...),
		d.SetURL(c.URL),
		d.SetTenant(c.Tenant),
	}
	if len(c.Roots) > 0 {
		errs = append(errs, d.SetRoots(PEM(c.Roots)))
	}
	for name, text := range map[string][]byte{
		"kind": []byte(Production + "\n"), "added": []byte(c.Name + "\n"), bus.ManagerCreds: c.Creds,
	} {
		if text != nil {
			errs = append(errs, durable.CreateFile(filepath.Join(path, name), text, durable.PrivateFile))
		}
	}
	return errors.Join(errs...)
}

// A Tenancy is what the first manager of a further tenant starts with.
type Tenancy struct {
	Tenant string
	URL    string
	Roots  [][]byte
	Creds  []byte
	// Secret makes the credentials of the tenant's users.
	Secret []byte
}

// MakeTenant makes a data directory, tenants/NAME, for the first manager of a
// tenant, once: it is to be moved to where that runs.
func (d *Dir) MakeTenant(t Tenancy) error {
	path, given := d.File(filepath.Join("tenants", t.Tenant)), d.File(filepath.Join("bus", "tenants", t.Tenant, "given"))
	if _, err := os.Stat(given); err == nil {
		durable.Settle(given) // the directory may be moved away now
		return nil
	}
	if err := durable.RemoveAll(path); err != nil { // what a crash left
		return fmt.Errorf("making the directory of tenant %s: %w", t.Tenant, err)
	}
	if err := MakeFirst(path, t); err != nil {
		return err
	}
	return durable.WriteFile(given, nil, durable.PrivateFile)
}

// MakeFirst makes a data directory for the first manager of a tenant. The directory
// must not exist, or be empty.
func MakeFirst(path string, t Tenancy) error {
	if old, err := os.ReadDir(path); err == nil && len(old) > 0 {
		return fmt.Errorf("making the directory of tenant %s: %s is not empty", t.Tenant, path)
	}
	if err := durable.MkdirAll(path); err != nil {
		return fmt.Errorf("making the directory of tenant %s: %w", t.Tenant, err)
	}
	own := At(path)
	errs := []error{own.SetURL(t.URL), own.SetTenant(t.Tenant)}
	if len(t.Roots) > 0 {
		errs = append(errs, own.SetRoots(PEM(t.Roots)))
	}
	for name, text := range map[string][]byte{"kind": []byte(Production + "\n"), bus.ManagerCreds: t.Creds, secretFile: t.Secret} {
		errs = append(errs, durable.CreateFile(own.File(name), text, durable.PrivateFile))
	}
	return errors.Join(errs...)
}

// secretFile holds the secret that makes a tenant's credentials, until it is on
// the bus.
const secretFile = "bus.secret"

// BusSecret returns the secret that makes credentials, nil in a directory that
// was not made with one.
func (d *Dir) BusSecret() ([]byte, error) {
	secret, err := durable.ReadPrivate(d.File(secretFile), maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return secret, err
}

// Roots returns the CA certificates (DER) that the bus is known by.
func (d *Dir) Roots() (roots [][]byte, err error) {
	text, err := durable.ReadTrusted(d.File(bus.RootsFile), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		roots = append(roots, block.Bytes)
	}
	return roots, err
}

// PEM encodes certificates.
func PEM(certs [][]byte) []byte {
	var text strings.Builder
	for _, der := range certs {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a strings.Builder takes all
	}
	return []byte(text.String())
}
