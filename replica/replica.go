// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// DefaultGroup and DefaultTenant are the group and the tenant of those who name
// none.
const (
	DefaultGroup  = "default"
	DefaultTenant = "default"
)

// Names in a joined directory.
const (
	// MemberFile holds the Membership; a directory that has it is joined.
	MemberFile = "member.json"
	// HostFile holds the host's own signing and sealing keys, a seal.Identity.
	HostFile = "host.pem"
	// ManagersFile holds the public keys of the managers that are trusted.
	ManagersFile = "managers.pub"
	// groupsDir holds the groups' keys.
	groupsDir = "groups"
	// snapshotDir is where the snapshot goes if Config.Snapshot is empty.
	snapshotDir = "snapshot"
)

// KeyFile is where a joined directory holds a group's private key.
func KeyFile(dir, group string) string { return filepath.Join(dir, groupsDir, group+".key") }

// Waits between attempts to follow the bus.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

// A Config says whose certificates to keep, and where. Dir, or Managers and
// Keys, must be set; everything else may be zero.
type Config struct {
	// Dir is a joined directory: see Join. It holds managers.pub and
	// groups/GROUP.key, and says where the bus is. One replica at a time uses a
	// joined directory: two would report as the same member.
	Dir string
	// Managers are trusted to sign; nil reads them from Dir, and follows there
	// which they are if Dir is joined.
	Managers []*seal.VerifyKey
	// Keys are the group's private keys, the newest first, and all that anything
	// held is sealed to; nil reads them from Dir, and follows there which are granted
	// if Dir is joined.
	Keys []*seal.PrivateKey
	// Group is the group to follow; "" is the one that Dir is joined to, or
	// DefaultGroup. Any other than the one that Dir is joined to is an error.
	Group string
	// Tenant is the namespace on the bus; "" is that of Dir, or DefaultTenant.
	Tenant string
	// Log is the bus; nil is the one that Dir's bus.url names, opened by the
	// replica and closed by Close: import the package of its engine. Where there
	// is no bus.url either, the replica serves what the snapshot has and no more.
	Log bus.Log
	// Snapshot is the directory of the snapshot, used by one replica at a time.
	// "" is Dir's "snapshot", or no snapshot where Dir is empty, too.
	Snapshot string
	// Store gets the certificates, each under its id; nil makes a new one.
	Store *keyturn.Store
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Program is the program's version, for receipts; "" is that of its main
	// module.
	Program string
	// OnChange, if not nil, is called after each change of the store, in order.
	// It must not wait, nor call the replica.
	OnChange func(Change)
}

// A Change is something that was applied to the store.
type Change struct {
	ID string
	// Version is the new one.
	Version event.Version
	// Leaf is the new certificate, nil after a removal, or where the one of Version,
	// served already, turned out to be no good. Previous is the one
	// before, nil where there was none, or where it was never needed since the
	// start.
	Leaf, Previous *x509.Certificate
}

// A Replica keeps a group's certificates. Its methods may be called by any
// goroutine.
type Replica struct {
	group, tenant string
	dir           string
	log           bus.Log
	store         *keyturn.Store
	logger        *slog.Logger
	onChange      func(Change)
	started       time.Time

	conn     bus.Conn    // that of log, nil unless the replica opened it
	main     *follower   // of the group; nil without a bus
	memos    []*follower // of the member's, the managers' and the challenges' entries
	answers  *follower   // of the challenges' entry, one of memos
	member   *member     // nil outside a joined directory
	reporter *reporter   // nil where nothing is reported
	// followsManagers and followsKeys say that the program gave none of its own.
	followsManagers, followsKeys bool

	stop     context.CancelFunc
	running  sync.WaitGroup // everything that stop ends
	caughtUp chan struct{}  // closed when all there was has been taken once

	mu       sync.Mutex
	held     map[string]*held   // guarded by mu
	pending  map[string]pending // guarded by mu
	position bus.Position       // guarded by mu; the place reached
	// unproven are ids of what is held and may not be proven. Guarded by mu.
	unproven []string
	proving  chan struct{} // says that they may be proven now
	// unresolved has, by key, what was not applied and may be later. A restart
	// follows the bus from before the first of them. Guarded by mu.
	unresolved map[string]unresolved
	failures   map[string]failure // guarded by mu; by id, why something newer is not served
	snapshot   *snapshot          // guarded by mu; nil without one
	status     Status             // guarded by mu; what statusLocked adds is zero
	logged     map[string]bool    // guarded by mu; refusals that were logged
	closed     bool               // guarded by mu

	managers      atomic.Pointer[[]*seal.VerifyKey] // stored with mu held; those that are trusted
	serial        uint64                            // guarded by mu; of their set, 0 if not known
	savedSerial   uint64                            // guarded by mu; of the set that is written down
	refusedMember *bus.Entry                        // guarded by mu; the member's, if its signer is not known yet
	// memberSigned and challengesSigned are when the newest that was taken of either was
	// signed: a bus may give out again what was there before. Guarded by mu.
	memberSigned, challengesSigned time.Time
	// strangeChallenges says that the challenges' signer is not known yet. Guarded by
	// mu.
	strangeChallenges bool

	// keys are the group's, the newest first; granted those of them that the
	// member has, nil if that is not known; stored those that are written down.
	// Guarded by mu.
	keys, granted, stored []*seal.PrivateKey

	// again is where to follow the bus from after followAgain, nil once that has
	// begun. Guarded by mu.
	again *bus.Position
	// agrees says, by id, whether the bus has what is held; nil unless it is
	// being followed from its start. Guarded by mu.
	agrees  map[string]bool
	proofs  map[string]bool // guarded by mu; ids of which the bus has lost what is held
	history history         // guarded by mu
	beacon  beaconState     // guarded by mu

	challenges challenges
}

// Open starts a replica. If it finds a snapshot it returns at once, and the
// store serves what the snapshot has. Without one it waits until everything
// that is on the bus has been taken, or ctx ends, which is an error then. ctx
// is not used afterwards.
func Open(ctx context.Context, c Config) (_ *Replica, err error) {
	m, err := readMember(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := m.place(&c); err != nil {
		return nil, err
	}
	r := &Replica{
		dir: c.Dir, member: m, followsManagers: m != nil && c.Managers == nil, followsKeys: m != nil && c.Keys == nil,
		group: cmp.Or(c.Group, DefaultGroup), tenant: cmp.Or(c.Tenant, DefaultTenant),
		keys: c.Keys, log: c.Log, store: c.Store,
		logger: cmp.Or(c.Logger, slog.Default()), onChange: c.OnChange,
		started: time.Now(), caughtUp: make(chan struct{}), proving: make(chan struct{}, 1),
		held: make(map[string]*held), pending: make(map[string]pending), logged: make(map[string]bool),
	}
	r.managers.Store(&c.Managers)
	r.logger = r.logger.With("group", r.group)
	if r.store == nil {
		r.store = new(keyturn.Store)
	}
	if err := r.readKeys(c.Dir); err != nil {
		return nil, err
	}
	dir := c.Snapshot
	if dir == "" && c.Dir != "" {
		dir = filepath.Join(c.Dir, snapshotDir)
	}
	restored, err := r.restore(dir)
	if err != nil {
		return nil, err
	}
	if err := r.openBus(c.Dir); err != nil {
		_ = r.snapshot.close() // nothing was written
		return nil, err
	}
	if r.log == nil && !restored {
		_ = r.snapshot.close() // nothing was written
		return nil, fmt.Errorf("replica: there is neither a bus nor a snapshot in %q: nothing to serve from", dir)
	}
	r.run(context.WithoutCancel(ctx), c.Program)
	if restored {
		return r, nil
	}
	select {
	case <-r.caughtUp:
		return r, nil
	case <-ctx.Done():
		last := r.Status().LastError
		_ = r.Close() // ctx's end is the error to report
		return nil, fmt.Errorf("replica: there is no snapshot in %q to serve from, and the bus has not answered: %w", dir, cmp.Or(last, ctx.Err()))
	}
}

// openBus connects to the bus that a directory names, if the program gave none.
func (r *Replica) openBus(dir string) error {
	if r.log != nil || dir == "" {
		return nil
	}
	o := bus.Options{Tenant: r.tenant, Logger: r.logger}
	if r.member != nil {
		o.Name = r.member.Name
	}
	conn, err := bus.OpenDir(dir, o)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	r.log, r.conn = conn, conn
	return nil
}

// run starts what runs until Close.
func (r *Replica) run(ctx context.Context, program string) {
	ctx, r.stop = context.WithCancel(ctx)
	if r.log != nil {
		r.follow(ctx, program)
	}
	r.running.Go(func() { r.prove(ctx) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proveSoon()
}

// follow starts what runs with a bus until ctx ends.
func (r *Replica) follow(ctx context.Context, program string) {
	r.main = r.groupFollower()
	r.answers = r.challengeFollower()
	r.memos = append(r.memos, r.answers)
	followers := []*follower{r.main}
	if r.member != nil {
		r.memos = append(r.memos, r.memo(r.log, event.MemberKey(r.group, r.member.ID), r.takeMember))
		if r.followsManagers {
			r.memos = append(r.memos, r.memo(r.log, event.ManagersKey, r.takeManagers))
		}
		if b, ok := r.log.(bus.Boarder); ok {
			followers = append(followers, r.beaconFollower(b.Board()))
			r.reporter = newReporter(r, b.Board(), program)
			r.running.Go(func() { r.reporter.run(ctx) })
		}
	}
	for _, f := range append(followers, r.memos...) {
		r.running.Go(func() { f.run(ctx) })
	}
}

func (r *Replica) readKeys(dir string) (err error) {
	if err := event.CheckName(r.group); err != nil {
		return fmt.Errorf("replica: the group: %w", err)
	}
	if *r.managers.Load() == nil && dir != "" {
		if err := r.readManagers(dir); err != nil {
			return err
		}
	}
	if r.keys == nil && dir != "" {
		if r.keys, err = seal.ReadPrivateKeyFile(KeyFile(dir, r.group)); err != nil {
			return fmt.Errorf("replica: %w", err)
		}
	}
	if len(*r.managers.Load()) == 0 || len(r.keys) == 0 {
		return errors.New("replica: the managers' public keys and the group's private key are needed: set Config.Dir, or Managers and Keys")
	}
	r.stored = r.keys
	return nil
}

// restore fills the store from the snapshot.
func (r *Replica) restore(dir string) (bool, error) {
	if dir == "" {
		return false, nil
	}
	s, entries, at, found, err := openSnapshot(r, dir)
	if err != nil {
		return false, err
	}
	r.snapshot, r.position, r.history.from = s, at, at
	r.held = make(map[string]*held, len(entries))
	for id, one := range entries {
		h := one.held
		r.held[id] = h
		if h.removed {
			continue
		}
		h.served = r.started
		if err := r.load(id, one.lazy, h); err != nil {
			r.logger.Error("a certificate of the snapshot cannot be served", "managed_id", id, "error", err)
			continue
		}
		if !h.proven {
			r.unproven = append(r.unproven, id)
		}
	}
	return found, nil
}

// Store returns the store that is kept current.
func (r *Replica) Store() *keyturn.Store { return r.store }

// CaughtUp is closed when everything that was on the bus has been taken for
// the first time since Open.
func (r *Replica) CaughtUp() <-chan struct{} { return r.caughtUp }

// Close stops following and closes the snapshot. The store goes on serving
// what it has.
func (r *Replica) Close() error {
	r.stop()
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.conn != nil {
		r.conn.Close()
	}
	for _, p := range r.pending {
		p.timer.Stop()
	}
	r.beacon.close()
	r.closeChallenges()
	return r.snapshot.close()
}
