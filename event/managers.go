// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// maxSets is how many sets of managers are remembered, and maxSetsSize how long
// they are together, in bytes, so that the list fits into an entry: a replica
// that was away for more changes has to join anew.
const (
	maxSets     = 100
	maxSetsSize = MaxSize * 3 / 4
)

// ManagerSet says which signing keys are managers'. Each set is signed by a key
// of the one before, so that whoever trusts any of them finds the newest.
type ManagerSet struct {
	// Serial counts up; the first is 1.
	Serial uint64
	Keys   []ManagerKey
	// Reached says, in a set that leaves a manager out, where the log ended when
	// the set was made: what that manager wrote later counts for nothing.
	Reached []Reached
}

// Reached is a place in the log.
type Reached struct {
	Scope string
	// Position is one as bus.Position prints it.
	Position string
}

// maxScopes bounds the places in a set.
const maxScopes = 16

// A ManagerKey is the signing key of one manager.
type ManagerKey struct {
	// Name is for people.
	Name string
	// Key is a seal.VerifyKey.
	Key   []byte
	Added time.Time
	// User is the public half of the key by which the manager logs in to the bus;
	// "" where the engine knows none.
	User string
}

const (
	setSerial tag = iota + 1
	setKey
	setReached
)

const (
	reachedScope tag = iota + 1
	reachedPosition
)

const (
	managerName tag = iota + 1
	managerKey
	managerAdded
	managerUser
)

func (k *ManagerKey) fields(f *codec) {
	f.string(managerName, &k.Name, maxWord)
	f.bytes(managerKey, &k.Key)
	f.time(managerAdded, &k.Added)
	f.string(managerUser, &k.User, maxURL)
}

func (s *ManagerSet) kind() Type  { return TypeManagerSet }
func (s *ManagerSet) key() string { return managerSetKey }

func (s *ManagerSet) fields(f *codec) {
	f.uint(setSerial, &s.Serial)
	messages(f, setKey, &s.Keys, MaxKeys)
	messages(f, setReached, &s.Reached, maxScopes)
}

func (r *Reached) fields(f *codec) {
	f.string(reachedScope, &r.Scope, maxKey)
	f.string(reachedPosition, &r.Position, maxURL)
}

func (s *ManagerSet) check() error {
	if s.Serial == 0 {
		return errors.New("serials start at 1")
	}
	if len(s.Keys) == 0 || len(s.Keys) > MaxKeys {
		return fmt.Errorf("%d managers: 1 to %d are allowed", len(s.Keys), MaxKeys)
	}
	for _, k := range s.Keys {
		if err := CheckHost(k.Name); err != nil {
			return fmt.Errorf("a manager: %w", err)
		}
		if _, err := seal.NewVerifyKey(k.Key); err != nil {
			return fmt.Errorf("manager %s: %w", k.Name, err)
		}
	}
	return nil
}

// Trusted returns the keys of the set.
func (s *ManagerSet) Trusted() []*seal.VerifyKey {
	var keys []*seal.VerifyKey
	for _, k := range s.Keys {
		v, err := seal.NewVerifyKey(k.Key)
		if err == nil { // check has seen to it
			keys = append(keys, v)
		}
	}
	return keys
}

// ManagerChain has the sets of managers, the newest last.
type ManagerChain struct {
	// Sets are signed ManagerSet events.
	Sets [][]byte
}

const managersSet tag = 1

func (m *ManagerChain) kind() Type      { return TypeManagerChain }
func (m *ManagerChain) key() string     { return ManagersKey }
func (m *ManagerChain) fields(f *codec) { f.blobs(managersSet, &m.Sets, maxSets) }

func (m *ManagerChain) check() error {
	if len(m.Sets) == 0 || len(m.Sets) > maxSets {
		return fmt.Errorf("%d sets of managers: 1 to %d are allowed", len(m.Sets), maxSets)
	}
	return nil
}

// Add appends a set, signed by a key of the newest, and forgets the oldest where
// there are too many or they are too long.
func (m *ManagerChain) Add(by *seal.SigningKey, tenant string, at time.Time, s *ManagerSet) error {
	data, err := Sign(by, tenant, at, s)
	if err != nil {
		return err
	}
	keep, size := len(m.Sets), len(data)
	for keep > max(0, len(m.Sets)-maxSets+1) && size+len(m.Sets[keep-1]) <= maxSetsSize {
		keep--
		size += len(m.Sets[keep])
	}
	m.Sets = append(m.Sets[keep:len(m.Sets):len(m.Sets)], data)
	return nil
}

// ErrOldManagers means that a list of managers is older than the one that is
// known.
var ErrOldManagers = errors.New("event: an older list of managers than the one that is known")

// OpenManagers follows the sets of a ManagerChain from the one that is known,
// whose keys are trusted and whose serial is 0 where it is not known, to the
// newest, and returns that. Each step must be signed by a key of the set before
// it. The error is seal.ErrUnknownSigner if none of the sets is signed by a
// trusted key, and ErrOldManagers if the newest has a lower serial.
func OpenManagers(trusted []*seal.VerifyKey, serial uint64, tenant string, data []byte) (*ManagerSet, error) {
	e, err := Trusted(tenant, data) // what counts is inside, and has signatures of its own
	if err != nil {
		return nil, err
	}
	m, ok := e.Body.(*ManagerChain)
	if !ok || e.Key != ManagersKey {
		return nil, fmt.Errorf("%w: not a list of managers", ErrMalformed)
	}
	var newest *ManagerSet
	var failed error // why the last set does not count
	for _, data := range m.Sets {
		e, err := Open(trusted, tenant, managerSetKey, data)
		if errors.Is(err, seal.ErrUnknownSigner) {
			failed = err // from before, or from another line
			continue
		}
		if err != nil {
			return nil, err
		}
		s, ok := e.Body.(*ManagerSet)
		if !ok {
			return nil, fmt.Errorf("%w: not a set of managers", ErrMalformed)
		}
		if s.Serial < serial || newest != nil && s.Serial <= newest.Serial {
			failed = ErrOldManagers
			continue
		}
		newest, trusted = s, s.Trusted()
	}
	if newest == nil {
		return nil, failed // check has seen to it that there is a set
	}
	last, err := Trusted(tenant, m.Sets[len(m.Sets)-1])
	if err != nil {
		return nil, err
	}
	if s, ok := last.Body.(*ManagerSet); !ok || s.Serial != newest.Serial {
		return nil, fmt.Errorf("%w: the newest set of managers does not follow from the known one", seal.ErrUnknownSigner)
	}
	// The entry itself is put there by one of them.
	if _, err := Open(append(newest.Trusted(), trusted...), tenant, ManagersKey, data); err != nil {
		return nil, err
	}
	return newest, nil
}
