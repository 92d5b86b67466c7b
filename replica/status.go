// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"maps"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// A Reason says why an event was refused.
type Reason string

// The reasons.
const (
	RefusedSigner      Reason = "unknown-signer" // no pinned manager signed it
	RefusedSignature   Reason = "signature"      // its bytes are not what was signed
	RefusedMoved       Reason = "moved"          // it was signed for another key or tenant
	RefusedMalformed   Reason = "malformed"      // it is no event, or of a type that has no place here
	RefusedUnsupported Reason = "unsupported"    // it needs a newer version of this program
	RefusedReplay      Reason = "replay"         // it is older than what is held, or another of the same version
	RefusedKey         Reason = "key"            // its private key does not open with the group's key
	RefusedCertificate Reason = "certificate"    // its certificate is no good: see the log
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{
		RefusedSigner, RefusedSignature, RefusedMoved, RefusedMalformed,
		RefusedUnsupported, RefusedReplay, RefusedKey, RefusedCertificate,
	}
}

// Status is what a replica has done and how it is.
type Status struct {
	// Following says that everything on the bus has been taken and more is
	// being waited for.
	Following bool
	// LastError is why the bus is not followed; nil while it is.
	LastError error
	// Position is the place reached on the bus.
	Position bus.Position
	// Certificates is how many are held.
	Certificates int
	// Applied and Removed count changes since Open.
	Applied, Removed uint64
	// Refused counts refused events since Open.
	Refused map[Reason]uint64
	// SnapshotErrors counts failed writes of the snapshot.
	SnapshotErrors uint64
	// Budget is when the first certificate ends that is held; zero where none is.
	Budget time.Time
	// Challenges is how many challenges of CAs are answered.
	Challenges int
	// Keys are the group's keys that are held, the newest first.
	Keys []seal.KeyID

	// Of a joined directory only, the rest being zero elsewhere:

	// Member is the member's id.
	Member string
	// Revoked says that managers took the member's rights away: what is held is
	// served on, and nothing is reported any more.
	Revoked bool
	// Beacon is when the newest beacon was signed, and Skew how far its time was
	// ahead of this host's clock when it came, less than zero if it was behind.
	Beacon time.Time
	Skew   time.Duration
	// Silent says that no beacon has come for three times as long as was to be
	// expected.
	Silent bool
	// Differs says that what is held is not what the newest beacon says, and
	// Healed counts how often following the bus from its start has mended that.
	Differs bool
	Healed  uint64
}

// Status returns a copy of the status.
func (r *Replica) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statusLocked()
}

func (r *Replica) statusLocked() Status {
	s := r.status
	s.Refused = maps.Clone(s.Refused)
	s.Position = r.position
	for _, h := range r.held {
		if h.removed {
			continue
		}
		s.Certificates++
		if s.Budget.IsZero() || h.notAfter.Before(s.Budget) {
			s.Budget = h.notAfter
		}
	}
	s.Challenges, _ = r.challenges.answered()
	for _, k := range r.keys {
		s.Keys = append(s.Keys, k.Public().ID())
	}
	if r.member != nil {
		s.Member = r.member.ID
	}
	return s
}

// Version returns the version that is held of a managed certificate, or that
// of its removal; the zero Version if it was never seen.
func (r *Replica) Version(id string) event.Version {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[id]; h != nil {
		return h.version
	}
	return event.Version{}
}
