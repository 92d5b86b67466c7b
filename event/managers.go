// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// maxSets is how many sets of managers are remembered: a replica that was away
// for more changes than that has to join anew.
const maxSets = 100

// ManagerSet says which signing keys are managers'. Each set is signed by a key
// of the one before, so that whoever trusts any of them finds the newest.
type ManagerSet struct {
	// Serial counts up; the first is 1.
	Serial uint64
	Keys   []ManagerKey
}

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

// Add appends a set, signed by a key of the newest, and forgets the oldest if
// there are too many.
func (m *ManagerChain) Add(by *seal.SigningKey, tenant string, at time.Time, s *ManagerSet) error {
	data, err := Sign(by, tenant, at, s)
	if err != nil {
		return err
	}
	m.Sets = append(m.Sets[max(0, len(m.Sets)-maxSets+1):len(m.Sets):len(m.Sets)], data)
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
	unknown := error(nil)
	for _, data := range m.Sets {
		e, err := Open(trusted, tenant, managerSetKey, data)
		if errors.Is(err, seal.ErrUnknownSigner) {
			unknown = err // from before, or from another line
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
			continue
		}
		newest, trusted = s, s.Trusted()
	}
	if newest == nil {
		if unknown != nil {
			return nil, unknown
		}
		return nil, ErrOldManagers
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
