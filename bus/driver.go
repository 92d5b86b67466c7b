// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/durable"
)

// Names of the files by which a directory says where its bus is, and who it is
// there.
const (
	// URLFile holds the URL of the bus. A server that takes whatever port is free
	// writes it at each start.
	URLFile = "bus.url"
	// RootsFile holds the CA certificates (PEM) that the bus is known by; without
	// it those of the system are.
	RootsFile = "bus.ca"
	// ReplicaCreds and ManagerCreds hold the credentials, mode 0600. An engine
	// that has its own, such as AWS, needs none.
	ReplicaCreds = "replica.creds"
	ManagerCreds = "manager.creds"
	// MonitorCreds holds the credentials by which an engine of one's own is asked how
	// it writes to the disk, where Options.Monitor does not say otherwise.
	MonitorCreds = "monitor.creds"
)

// A Conn is a tenant's log, and its board, over a connection of its own.
type Conn interface {
	Boarder
	// Connected returns when the bus was reached, or with the reason why not when
	// an attempt has failed or ctx ends.
	Connected(ctx context.Context) error
	// Check returns nil while the bus is reached, else why it is not. It does
	// not wait.
	Check() error
	// Close ends the connection. Calls under way fail.
	Close()
}

// Options say as whom a directory's bus is used.
type Options struct {
	// Creds is the file name of the credentials in the directory; "" is
	// ReplicaCreds.
	Creds string
	// Monitor is where an engine of one's own says how it writes to the disk, in the
	// engine's form; "" is the directory's MonitorCreds, and nowhere without them.
	Monitor string
	// Tenant is "default" if empty.
	Tenant string
	// Name tells the bus who connects; "" is "keyturn".
	Name string
	// Logger gets a line when the connection is lost or found again; nil is
	// slog.Default.
	Logger *slog.Logger
}

// A Driver opens the logs of one engine.
type Driver interface {
	// Open connects to the bus of a directory, at the URL that its URLFile holds
	// now. It returns at once, whether the bus can be reached or not.
	Open(dir, url string, o Options) (Conn, error)
	// User returns the public half, as the engine prints it, of the key by which
	// a host that has these 32 secret bytes logs in; "" where an engine knows no
	// such keys.
	User(secret []byte) (public string, err error)
	// Credentials returns the text of a credentials file: what a manager granted
	// to the user, and the secret. It is nil where User returns "".
	Credentials(grant string, secret []byte) ([]byte, error)
}

var drivers struct {
	sync.Mutex
	byScheme map[string]Driver // guarded by the mutex
}

// Register makes a driver known under URL schemes. The packages of the engines
// do it when they are imported.
func Register(d Driver, schemes ...string) {
	drivers.Lock()
	defer drivers.Unlock()
	if drivers.byScheme == nil {
		drivers.byScheme = make(map[string]Driver)
	}
	for _, s := range schemes {
		drivers.byScheme[s] = d
	}
}

// DriverOf returns the driver for a bus URL.
func DriverOf(url string) (Driver, error) {
	scheme, _, ok := strings.Cut(url, "://")
	if !ok {
		return nil, errors.New("bus: a URL starts with nats://, tls:// or dynamodb://")
	}
	drivers.Lock()
	defer drivers.Unlock()
	if d := drivers.byScheme[scheme]; d != nil {
		return d, nil
	}
	known := make([]string, 0, len(drivers.byScheme))
	for s := range drivers.byScheme {
		known = append(known, s+"://")
	}
	slices.Sort(known)
	return nil, fmt.Errorf("bus: nothing in this program opens %s:// (it knows %s): import the engine's package, such as _ \"github.com/keyturn/keyturn/bus/jetstream\"",
		scheme, strings.Join(known, ", "))
}

// ReadURL returns the URL that a directory's URLFile holds.
func ReadURL(dir string) (string, error) {
	text, err := durable.ReadFile(filepath.Join(dir, URLFile), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("bus: no bus is known in %s: %w", dir, err)
	}
	if err != nil {
		return "", fmt.Errorf("bus: reading where the bus is: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// OpenDir connects to the bus of a directory: a joined one, or a manager's. It
// returns at once, whether the bus can be reached or not. The package of the
// engine has to be imported.
func OpenDir(dir string, o Options) (Conn, error) {
	url, err := ReadURL(dir)
	if err != nil {
		return nil, err
	}
	d, err := DriverOf(url)
	if err != nil {
		return nil, err
	}
	return d.Open(dir, url, o)
}
