// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
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
	// event.BeaconEvery; the least is a second.
	Every time.Duration
	// Managers are the signers whose entries are believed, until the bus says
	// which set of managers follows from them; nil is the identity's own signing
	// key only. Serial is that of their set, 0 if it is not known: an older one is
	// refused.
	Managers []*seal.VerifyKey
	Serial   uint64
	// Chain is what Learnt was told last, nil if nothing: Managers are followed from
	// there on. Without it a manager that was revoked, and can still write to the
	// bus, is believed after a start by whoever starts from older keys.
	Chain []byte
	// Learnt, if not nil, is given the list of managers, as it stands on the bus,
	// when it is a newer one than Chain: to be kept where nobody else can write.
	Learnt func(chain []byte)
	// Name and User tell other managers of this one: what people call it, the
	// host's name if empty, and the public half of the key by which it logs in to
	// the bus, "" where the engine knows none. Init writes them.
	Name, User string
	// Mint makes credentials for the bus from the secret that SetBusInfo was
	// given; it must not keep that. With nil, none are made.
	Mint func(secret []byte) (Credentials, error)
	// Keys returns the private keys of a group, the newest first, that this
	// process holds: Run grants them to members. It is asked each time. With nil,
	// or where it returns none, another manager has to.
	Keys func(group string) ([]*seal.PrivateKey, error)
	// Solvers makes a solver of the shared configuration from its name, its settings
	// and the name servers to ask, and says which types of challenges it answers.
	// It may be called for several at once. With nil, only replicas answer challenges.
	Solvers func(name string, c config.Solver, resolvers []string) (s solver.Solver, types []string, err error)
	// Revoked, if not nil, is told of the bus users, sorted, whose rights were
	// taken away: by Run at its start and whenever there are others, and by what
	// takes rights away. A user that it was told of once stays revoked unless it
	// is a manager's or a member's again, even where the bus has forgotten it. It
	// must not wait.
	Revoked func(users []string)
	// Tenant is the namespace on the bus; "" is DefaultTenant.
	Tenant string
	// Instance names this manager over restarts: claims of an earlier run of the
	// same instance are dead, because the caller makes sure that no two run at
	// once. "" is a random one.
	Instance string
	// Snapshot is a directory in which Run keeps what the log holds, to rebuild it
	// from: see RestoreLog. No two managers may have the same at once. "" is none.
	Snapshot string
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Progress, if not nil, is told in a few words what happens to a certificate
	// that Make, Renew or Remove works on, or to the group, member or manager
	// that is worked on. It must not wait.
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
	name     string
	user     string
	tenant   string
	instance string
	boot     string
	snapshot string
	logger   *slog.Logger
	progress func(id, what string)
	changed  func(*Managed)
	mint     func([]byte) (Credentials, error)                                      // nil: no credentials are made
	keys     func(group string) ([]*seal.PrivateKey, error)                         // never nil
	revoked  func(users []string)                                                   // nil: nobody wants to know
	learnt   func(chain []byte)                                                     // nil: nobody keeps it
	solvers  func(string, config.Solver, []string) (solver.Solver, []string, error) // nil: there are none

	trust atomic.Pointer[trust]
	live  atomic.Pointer[view] // Run's; nil while it does not run

	parsed    atomic.Pointer[parsedConfig] // as it was read last
	running   atomic.Pointer[scheduler]    // Run's, as live
	snapshots atomic.Pointer[snapshotter]  // as live
	set       atomic.Pointer[settings]     // as they were read last
	ledger    ledger

	readings readings

	mu        sync.Mutex
	stats     Stats                    // guarded by mu
	seen      map[string]sighting      // guarded by mu; claims by id
	mine      map[string]int           // guarded by mu; attempts under way by id
	issuers   map[string]cachedIssuer  // guarded by mu; by name
	openings  map[string]*opening      // guarded by mu; by issuer
	strangers map[seal.KeyID]time.Time // guarded by mu; signers that were no managers, and when
	judged    map[[32]byte]judgement   // guarded by mu; proofs by their SHA-256
	liars     map[string]bool          // guarded by mu; members whose wrong proofs were logged

	beliefs     map[string]belief      // guarded by mu; by key
	madeSolvers map[string]*madeSolver // guarded by mu; by name
	answers     map[string]*answers    // guarded by mu; by group
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
		log: c.Log, board: c.Board, every: max(time.Second, cmp.Or(c.Every, event.BeaconEvery)), identity: c.Identity,
		name: cmp.Or(c.Name, hostName()), user: c.User, mint: c.Mint, keys: c.Keys, revoked: c.Revoked, learnt: c.Learnt, solvers: c.Solvers,
		tenant: cmp.Or(c.Tenant, DefaultTenant), instance: cmp.Or(c.Instance, rand.Text()), boot: rand.Text(), snapshot: c.Snapshot,
		logger: cmp.Or(c.Logger, slog.Default()), progress: c.Progress, changed: c.Changed,
		seen: make(map[string]sighting), mine: make(map[string]int), issuers: make(map[string]cachedIssuer), openings: make(map[string]*opening),
		strangers: make(map[seal.KeyID]time.Time),
		judged:    make(map[[32]byte]judgement), liars: make(map[string]bool),
		beliefs: make(map[string]belief), madeSolvers: make(map[string]*madeSolver), answers: make(map[string]*answers),
	}
	if b, ok := c.Log.(bus.Boarder); ok && m.board == nil {
		m.board = b.Board()
	}
	t := &trust{keys: c.Managers, serial: c.Serial}
	if t.keys == nil {
		t.keys = []*seal.VerifyKey{c.Identity.Signing.Public()}
	}
	if len(c.Chain) > 0 {
		if t.follow(m.tenant, c.Chain); t.problem != nil {
			m.logger.Error("the list of managers that was kept does not follow from the keys that are trusted; those are, and the bus is asked", "error", t.problem)
			t.problem = nil
		}
	}
	m.trust.Store(t)
	m.ledger = ledger{m.loadBudget, m.saveBudget, m.every}
	m.readings.byKey = make(map[string]reading)
	if m.keys == nil {
		m.keys = func(string) ([]*seal.PrivateKey, error) { return nil, nil }
	}
	if m.progress == nil {
		m.progress = func(string, string) {}
	}
	if m.changed == nil {
		m.changed = func(*Managed) {}
	}
	return m, nil
}

// Init makes a new log ready: it writes the first epoch and the first set of
// managers, which is this one and those that it was told of. What is there
// already stays.
func (m *Manager) Init(ctx context.Context) error {
	if err := m.initSigners(ctx); err != nil {
		return fmt.Errorf("preparing the log: %w", err)
	}
	_, err := m.append(ctx, bus.Position{}, &event.LogInfo{Epoch: 1})
	crash.Point(crash.EpochWritten)
	if conflict(err) {
		_, err = m.epoch(ctx)
	}
	if err != nil {
		return fmt.Errorf("preparing the log: %w", err)
	}
	return nil
}

// Epoch returns the epoch of the log, which a restore raises.
func (m *Manager) Epoch(ctx context.Context) (uint64, error) { return m.epoch(ctx) }

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

// get reads, verifies and decodes an entry.
func get[B event.Body](ctx context.Context, m *Manager, key string) (body B, at bus.Position, err error) {
	f, err := fetch[B](ctx, m, key)
	return f.body, f.position, err
}

// fetch reads an entry that managers signed.
func fetch[B event.Body](ctx context.Context, m *Manager, key string) (f found[B], err error) {
	e, at, err := m.entry(ctx, key)
	if err != nil {
		return f, err
	}
	body, ok := e.Body.(B)
	if !ok {
		return f, fmt.Errorf("the entry %s on the bus: %w", key, event.ErrUnsupported)
	}
	return found[B]{body, e.Time, at}, nil
}

// entry reads and verifies an entry.
func (m *Manager) entry(ctx context.Context, key string) (e *event.Event, at bus.Position, err error) {
	entry, err := m.get(ctx, key)
	if isNotFound(err) {
		return nil, at, err
	}
	if err != nil {
		return nil, at, &busError{err}
	}
	e, err = m.open(ctx, key, entry.Data)
	if err != nil {
		return nil, at, disbelief("the entry "+key, err)
	}
	return e, entry.Position, nil
}

// append signs a body and writes it under its key in place of what is at after.
// The error is ErrNotManager if nobody would believe it.
func (m *Manager) append(ctx context.Context, after bus.Position, body event.Body) (bus.Position, error) {
	return m.succeed(ctx, after, time.Time{}, body)
}

// succeed is append of what replicas know the newest of by its time: it is signed as
// later than what it takes the place of, whatever this host's clock says.
func (m *Manager) succeed(ctx context.Context, after bus.Position, signed time.Time, body event.Body) (bus.Position, error) {
	now := time.Now()
	if !now.After(signed) {
		now = signed.Add(1)
	}
	data, err := m.sign(ctx, now, body)
	if err != nil {
		return bus.Position{}, err
	}
	return m.write(ctx, event.Key(body), after, data)
}

// sign signs a body, so that nobody here has to verify it. The error is ErrNotManager
// if nobody would believe it.
func (m *Manager) sign(ctx context.Context, at time.Time, body event.Body) ([]byte, error) {
	t, err := m.mayWrite(ctx)
	if err != nil {
		return nil, err
	}
	data, err := event.Sign(m.identity.Signing, m.tenant, at, body)
	if err == nil && slices.ContainsFunc(t.keys, m.identity.Signing.Public().Equal) {
		m.remember(t, event.Key(body), data, nil)
	}
	return data, err
}

// write appends what is signed. An error that is no conflict is a *busError.
func (m *Manager) write(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	at, err := m.log.Append(ctx, key, after, data)
	m.readings.drop(key)
	if err != nil && !conflict(err) {
		err = &busError{err}
	}
	return at, err
}

func conflict(err error) bool {
	var c *bus.ConflictError
	return errors.As(err, &c)
}
