// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
)

func init() { bus.Register(driver{}, "nats", "tls") }

// driver implements bus.Driver.
type driver struct{}

// Open implements bus.Driver. A file of roots in the directory is read at every
// attempt to connect. One that goes missing later is an error; one that comes later,
// as when the bus moves to where it is known by a CA of its own, is used from then on.
func (driver) Open(dir, url string, o bus.Options) (bus.Conn, error) {
	if _, err := parseURLs(url); err != nil {
		return nil, err
	}
	if err := CheckMonitor(o.Monitor); err != nil {
		return nil, fmt.Errorf("bus: where its servers are monitored: %w", err)
	}
	c := Options{
		URLFile: filepath.Join(dir, bus.URLFile), Creds: filepath.Join(dir, cmp.Or(o.Creds, bus.ReplicaCreds)),
		Monitor: o.Monitor, Tenant: o.Tenant, Name: o.Name, Logger: o.Logger,
	}
	c.RootsFile = filepath.Join(dir, bus.RootsFile)
	c.rootsLater = !exists(c.RootsFile)
	if monitor := filepath.Join(dir, bus.MonitorCreds); c.Monitor == "" && exists(monitor) {
		c.Monitor = monitor
	}
	return Connect(c)
}

// exists reports whether there is a file, or something that hinders finding out.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !os.IsNotExist(err)
}

// User implements bus.Driver.
func (driver) User(secret []byte) (string, error) {
	key, err := userKey(secret)
	if err != nil {
		return "", err
	}
	defer key.Wipe()
	return key.PublicKey()
}

// Credentials implements bus.Driver.
func (driver) Credentials(grant string, secret []byte) ([]byte, error) {
	key, err := userKey(secret)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return formatCredentials(grant, key)
}

func userKey(secret []byte) (nkeys.KeyPair, error) {
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, secret)
	if err != nil {
		return nil, fmt.Errorf("bus: the secret of a NATS user has 32 bytes: %w", err)
	}
	defer clear(seed)
	return nkeys.FromSeed(seed)
}

// formatCredentials returns the text of a credentials file. It refuses a grant
// that is for another user.
func formatCredentials(grant string, key nkeys.KeyPair) ([]byte, error) {
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	claims, err := jwt.DecodeUserClaims(grant)
	if err != nil {
		return nil, fmt.Errorf("bus: what the manager granted is no NATS user's JWT: %w", err)
	}
	if claims.Subject != public {
		return nil, fmt.Errorf("bus: the manager granted it to the user %s, not to %s", claims.Subject, public)
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(grant, seed)
}
