// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// SilentAfter is how long a replica that reported once is not heard of until it
// counts as silent: three of the minutes in each of which one reports at least.
const SilentAfter = 3 * time.Minute

// Seconds is a length of time, for JSON.
type Seconds float64

// Duration returns s as Go's type.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// A Query says of what Fleet tells. The zero Query is everything.
type Query struct {
	// ID is one managed certificate, also a removed one; "" is all that are not
	// removed.
	ID string
	// Group is one group; "" is all.
	Group string
	// Counts leaves CertificateStatus.Replicas and MemberStatus.Unknown out.
	Counts bool
}

// Fleet is what the managers know of hosts and certificates: what was issued,
// and what the replicas have reported of it. Its JSON is stable.
type Fleet struct {
	// At is when this was so.
	At time.Time `json:"at"`
	// Groups are sorted by name, Certificates by id, Members by group, name and
	// id. What was removed or revoked is left out.
	Groups       []GroupStatus       `json:"groups"`
	Certificates []CertificateStatus `json:"certificates"`
	Members      []MemberStatus      `json:"members"`
}

// GroupStatus is how a group is.
type GroupStatus struct {
	Name string `json:"name"`
	// Key is the id of the group's key, Retiring those of former ones that are
	// needed still.
	Key      string   `json:"key"`
	Retiring []string `json:"retiring,omitempty"`
	// Certificates and Members are how many the group has; Silent, Differing and
	// Unreported how many of the members are silent, say that they hold something
	// else than the managers' beacon, or never reported.
	Certificates int `json:"certificates"`
	Members      int `json:"members"`
	Silent       int `json:"silent"`
	Differing    int `json:"differing"`
	Unreported   int `json:"unreported"`
	// Budget is the outage budget: when the first certificate ends that was
	// issued to the group, or that one of its replicas serves. With managers, bus
	// and issuers down, clients notice nothing until then. Zero where there is
	// none.
	Budget time.Time `json:"outage_budget,omitzero"`
	// Beacon is when the newest beacon was signed; zero where there is none.
	Beacon time.Time `json:"beacon,omitzero"`
}

// CertificateStatus is how far the newest generation of a managed certificate
// has come.
type CertificateStatus struct {
	ID     string   `json:"id"`
	Group  string   `json:"group"`
	Names  []string `json:"names"`
	Issuer string   `json:"issuer"`
	// Version is the newest; generation 0 before the first.
	event.Version
	Removed bool `json:"removed,omitempty"`
	// Issued is when it was made, and NotAfter when it ends; zero where there is
	// none.
	Issued   time.Time `json:"issued,omitzero"`
	NotAfter time.Time `json:"not_after,omitzero"`
	// Due is when the next attempt is, back-off included, and Mark why it is due
	// before its time.
	Due  time.Time `json:"due,omitzero"`
	Mark string    `json:"mark,omitempty"`
	// Failure is what the last attempt failed with.
	Failure string `json:"failure,omitempty"`
	// Members is how many the group has, those that never reported included;
	// Delivered how many of them received Version, or a later one, and Served how
	// many give it to new handshakes. A removal that was received is served.
	Members   int `json:"members"`
	Delivered int `json:"delivered"`
	Served    int `json:"served"`
	// Replicas tells of each member, in the order of Fleet.Members.
	Replicas []ReplicaStatus `json:"replicas,omitempty"`
}

// A ReplicaState says in a word what a replica has done with the newest
// generation.
type ReplicaState string

// The states. What a replica said last still counts while it is silent, but
// nobody knows whether it is so.
const (
	StateServing  ReplicaState = "serving"        // new handshakes get it
	StateReceived ReplicaState = "received"       // it is held, and not served yet
	StateBehind   ReplicaState = "behind"         // it has not been received
	StateRefused  ReplicaState = "refused"        // the replica could not take it: see Error
	StateSilent   ReplicaState = "silent"         // nothing was heard for SilentAfter
	StateNever    ReplicaState = "never_reported" // the host joined, and no replica of it has ever reported
)

// ReplicaStatus is what one member has of one managed certificate.
type ReplicaStatus struct {
	Member string       `json:"member"`
	Name   string       `json:"name"`
	State  ReplicaState `json:"state"`
	// Version is the newest that it holds; zero if it holds none.
	event.Version
	// Received is when it came, Served since when new handshakes get it, zero
	// while they do not, and Lag how long it took from the signature to Received.
	// All are by the host's clock.
	Received time.Time `json:"received,omitzero"`
	Served   time.Time `json:"served,omitzero"`
	Lag      Seconds   `json:"lag_seconds,omitzero"`
	// Error is why a newer version is not served.
	Error string `json:"error,omitempty"`
	// Reported is when the replica said so by its own clock, and Seen when it was
	// heard by this machine's.
	Reported time.Time `json:"reported,omitzero"`
	Seen     time.Time `json:"seen,omitzero"`
}

// MemberStatus is how a host's replica is. All but the first four are as it
// reported, and zero if it never did.
type MemberStatus struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Group  string    `json:"group"`
	Joined time.Time `json:"joined"`
	// Granted says that it was given the group's key.
	Granted bool `json:"granted"`
	// Reported is when it reported by its own clock, Seen when it was heard by
	// this machine's; Silent says that this is longer ago than SilentAfter.
	Reported time.Time `json:"reported,omitzero"`
	Seen     time.Time `json:"seen,omitzero"`
	Silent   bool      `json:"silent"`
	// Program is its version, and Started when the replica was opened.
	Program string    `json:"program,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// Following says that it has taken all that is on the bus, Position the place
	// reached there, and Error why it is not following.
	Following bool   `json:"following"`
	Position  string `json:"position,omitempty"`
	Error     string `json:"error,omitempty"`
	// Skew is how far the managers' clocks are ahead of the host's, and Beacon
	// when the newest beacon was signed that it has seen.
	Skew   Seconds   `json:"skew_seconds"`
	Beacon time.Time `json:"beacon,omitzero"`
	// Differs says that it holds something else than the beacon says, and Healed
	// how often following anew has mended that.
	Differs bool   `json:"differs"`
	Healed  uint64 `json:"healed"`
	// Budget is when the first certificate ends that it serves.
	Budget time.Time `json:"outage_budget,omitzero"`
	// Keys are the ids of the group's keys that it holds.
	Keys []string `json:"keys,omitempty"`
	// Certificates is how many it holds.
	Certificates int `json:"certificates"`
	// Proofs is how many events it holds that the bus has lost.
	Proofs int `json:"proofs,omitempty"`
	// Unknown are ids that it holds and the bus does not know, at most 16 of
	// them.
	Unknown []string `json:"unknown,omitempty"`
}

// maxUnknown bounds MemberStatus.Unknown: enough to see what is wrong.
const maxUnknown = 16

// Fleet reads from the bus what was issued and what the replicas report, and
// puts it together. Managers' entries that cannot be believed, or read, are an
// error, and what the others say is returned nevertheless.
//
// Without a board there are no reports: every member has never reported.
func (m *Manager) Fleet(ctx context.Context, q Query) (*Fleet, error) {
	v := newView(m)
	// The states come last: whatever a replica reports is in them by then.
	for _, s := range append(v.sources(ctx), source{from: m.log, scope: event.StateScope, take: with(ctx, v.takeState)}) {
		if _, err := m.read(ctx, s, bus.Position{}); err != nil {
			return nil, fmt.Errorf("reading how the fleet is: %w", err)
		}
	}
	return v.fleet(q), v.problems()
}

// Live returns what Fleet would, as Run knows it from following bus and board.
// It is nil while Run does not run, or has not read everything yet.
func (m *Manager) Live(q Query) *Fleet {
	v := m.live.Load()
	if v == nil || !v.ready() {
		return nil
	}
	return v.fleet(q)
}
