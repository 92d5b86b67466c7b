// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// DefaultTenant and DefaultGroup are the tenant and the group of those who name
// none.
const (
	DefaultTenant = "default"
	DefaultGroup  = "default"
)

// ClaimLapse is how long an observer must have seen a claim unchanged before it
// may replace it. Certificates that live less than six times as long have
// shorter claims: a sixth of their lifetime.
const ClaimLapse = 2 * time.Minute

// A Config says on which bus, and as whom, a manager works. Log and Identity
// are required.
type Config struct {
	Log      bus.Log
	Identity *seal.Identity
	// Board is where beacons are put and receipts are read; nil is the Log's own
	// if it is a bus.Boarder, else there are neither.
	Board bus.Board
	// Every is how often a beacon of each group is to be expected: how often Run
	// signs one, or the interval of the timer that calls RenewDue. 0 is
	// event.BeaconEvery.
	Every time.Duration
	// Managers are the signers whose entries are believed; nil is the
	// identity's own signing key only.
	Managers []*seal.VerifyKey
	// Tenant is the namespace on the bus; "" is DefaultTenant.
	Tenant string
	// Instance names this manager over restarts: claims of an earlier run of the
	// same instance are dead, because the caller makes sure that no two run at
	// once. "" is a random one.
	Instance string
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Progress, if not nil, is told in a few words what happens to a certificate
	// that Make, Renew or Remove works on. It must not wait.
	Progress func(id, what string)
	// Changed, if not nil, is told by Run of every state, those at the start
	// included, in order. It must not wait.
	Changed func(*Managed)
}

// A Manager works on the managed certificates of a tenant. All methods may be
// called at once.
type Manager struct {
	log      bus.Log
	board    bus.Board // nil: none
	every    time.Duration
	identity *seal.Identity
	managers []*seal.VerifyKey
	tenant   string
	instance string
	boot     string
	logger   *slog.Logger
	progress func(id, what string)
	changed  func(*Managed)

	live atomic.Pointer[view] // Run's; nil while it does not run

	mu      sync.Mutex
	stats   Stats                   // guarded by mu
	seen    map[string]sighting     // guarded by mu; claims by id
	mine    map[string]int          // guarded by mu; attempts under way by id
	issuers map[string]cachedIssuer // guarded by mu; by name
}

// A sighting is when a claim was first seen as it is.
type sighting struct {
	at    bus.Position
	since time.Time // with its monotonic reading
}

// New returns a manager. It does not touch the bus.
func New(c Config) (*Manager, error) {
	if c.Log == nil || c.Identity == nil {
		return nil, errors.New("manager: a bus and an identity are needed")
	}
	m := &Manager{
		log: c.Log, board: c.Board, every: cmp.Or(c.Every, event.BeaconEvery), identity: c.Identity, managers: c.Managers,
		tenant: cmp.Or(c.Tenant, DefaultTenant), instance: cmp.Or(c.Instance, rand.Text()), boot: rand.Text(),
		logger: cmp.Or(c.Logger, slog.Default()), progress: c.Progress, changed: c.Changed,
		seen: make(map[string]sighting), mine: make(map[string]int), issuers: make(map[string]cachedIssuer),
	}
	if b, ok := c.Log.(bus.Boarder); ok && m.board == nil {
		m.board = b.Board()
	}
	if m.managers == nil {
		m.managers = []*seal.VerifyKey{c.Identity.Signing.Public()}
	}
	if m.progress == nil {
		m.progress = func(string, string) {}
	}
	if m.changed == nil {
		m.changed = func(*Managed) {}
	}
	return m, nil
}

// Init makes a new log ready: it writes the first epoch. On a log that has one
// it does nothing.
func (m *Manager) Init(ctx context.Context) error {
	_, err := m.append(ctx, bus.Position{}, &event.LogInfo{Epoch: 1})
	if conflict(err) {
		_, err = m.epoch(ctx)
	}
	if err != nil {
		return fmt.Errorf("preparing the log: %w", err)
	}
	return nil
}

// AddGroup makes a group known by its public key, to which the keys of its
// certificates are sealed. Adding the same group and key again does nothing;
// another key for the same name is an error.
func (m *Manager) AddGroup(ctx context.Context, name string, key *seal.PublicKey) error {
	_, err := m.append(ctx, bus.Position{}, &event.Group{Name: name, Key: key.Bytes()})
	if conflict(err) {
		var old *seal.PublicKey
		if old, err = m.groupKey(ctx, name); err == nil && !old.Equal(key) {
			err = errors.New("it exists with another key")
		}
	}
	if err != nil {
		return fmt.Errorf("adding group %q: %w", name, err)
	}
	return nil
}

func (m *Manager) groupKey(ctx context.Context, name string) (*seal.PublicKey, error) {
	g, _, err := get[*event.Group](ctx, m, event.GroupKey(name))
	if errors.Is(err, bus.ErrNotFound) {
		return nil, &InvalidError{fmt.Sprintf("there is no group %q on the bus; `keyturn serve` makes %q", name, DefaultGroup)}
	}
	if err != nil {
		return nil, err
	}
	return seal.NewPublicKey(g.Key)
}

func (m *Manager) epoch(ctx context.Context) (uint64, error) {
	info, _, err := get[*event.LogInfo](ctx, m, event.LogInfoKey)
	if errors.Is(err, bus.ErrNotFound) {
		return 0, errors.New("the bus holds no keyturn log yet: start `keyturn serve` on it first")
	}
	if err != nil {
		return 0, err
	}
	return info.Epoch, nil
}

// A busError says that the bus could not be asked. Asking again soon may help,
// and nothing is wrong with the certificate.
type busError struct{ err error }

func (e *busError) Error() string { return e.err.Error() }
func (e *busError) Unwrap() error { return e.err }

// appendTimeout bounds one append: a bus may retry as long as it is let.
const appendTimeout = 30 * time.Second

// open verifies and decodes an entry that a manager signed.
func (m *Manager) open(key string, data []byte) (*event.Event, error) {
	return event.Open(m.managers, m.tenant, key, data)
}

// get reads, verifies and decodes an entry.
func get[B event.Body](ctx context.Context, m *Manager, key string) (body B, at bus.Position, err error) {
	entry, err := m.log.Get(ctx, key)
	if isNotFound(err) {
		return body, at, err
	}
	if err != nil {
		return body, at, &busError{err}
	}
	e, err := event.Open(m.managers, m.tenant, key, entry.Data)
	if err != nil {
		return body, at, fmt.Errorf("the entry %s on the bus is not to be believed: %w", key, err)
	}
	body, ok := e.Body.(B)
	if !ok {
		return body, at, fmt.Errorf("the entry %s on the bus: %w", key, event.ErrUnsupported)
	}
	return body, entry.Position, nil
}

// append signs a body and writes it under its key in place of what is at after.
func (m *Manager) append(ctx context.Context, after bus.Position, body event.Body) (bus.Position, error) {
	data, err := event.Sign(m.identity.Signing, m.tenant, time.Now(), body)
	if err != nil {
		return bus.Position{}, err
	}
	e, err := event.Trusted(m.tenant, data)
	if err != nil {
		return bus.Position{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	at, err := m.log.Append(ctx, e.Key, after, data)
	if err != nil && !conflict(err) {
		err = &busError{err}
	}
	return at, err
}

func conflict(err error) bool {
	var c *bus.ConflictError
	return errors.As(err, &c)
}
