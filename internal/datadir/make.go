// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"encoding/pem"
	"errors"
	"fmt"
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

// PEM encodes certificates.
func PEM(certs [][]byte) []byte {
	var text strings.Builder
	for _, der := range certs {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a strings.Builder takes all
	}
	return []byte(text.String())
}
