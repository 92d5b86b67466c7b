// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"fmt"
)

// A Durable is a Log that can say what its bus does for entries to survive.
type Durable interface {
	Log
	// Durability asks the bus. The error means that it could not be asked.
	Durability(ctx context.Context) (*Durability, error)
}

// A Counter is a Log that can say how many keys there are without reading what stands
// under them.
type Counter interface {
	Log
	// Count returns, for each of these first parts of keys, how many keys begin with
	// it. What was appended just now may be counted or not.
	Count(ctx context.Context, parts []string) (map[string]uint64, error)
}

// Durability is what could be read back of how a bus keeps entries.
type Durability struct {
	// Engine is the bus, for people: "NATS JetStream" or "DynamoDB".
	Engine string `json:"engine"`
	// Log is the id of the log, and Head the sequence of its newest entry: of all, or,
	// where each first part of a key has sequences of its own, of "group", which is
	// what replicas follow. A replica that was further knows of a log that went back.
	Log  string `json:"log"`
	Head uint64 `json:"head,omitempty"`
	// Cluster is the name of the cluster; "" is a single server, or a service.
	Cluster string `json:"cluster,omitempty"`
	// Servers are those that hold the log, the leader first.
	Servers []Server `json:"servers,omitempty"`
	// Streams are what the log and the board lie in; none where the engine has no
	// such thing.
	Streams []Stream `json:"streams,omitempty"`
	// Reduced is what falls short of what a log promises; none is as promised.
	Reduced []Reduction `json:"reduced"`
}

// A Server is one that holds a log.
type Server struct {
	Name string `json:"name"`
	// Sync is when it has what it acknowledged on the disk: "always" is before, an
	// interval as "2m0s" after that time, and "unknown" is what it does not say.
	Sync string `json:"sync_interval"`
	// Current says that it has the newest entries, as far as the leader knows, and
	// Lag how many it is behind.
	Current bool   `json:"current"`
	Lag     uint64 `json:"lag"`
}

// A Stream is what holds a log or a board.
type Stream struct {
	Name     string `json:"name"`
	What     string `json:"what"` // "log" or "board"
	Entries  uint64 `json:"entries"`
	Bytes    uint64 `json:"bytes"`
	Replicas int    `json:"replicas"` // copies that there shall be
	Current  int    `json:"current"`  // copies that have the newest entries
}

// Reasons for which durability is reduced: words that stay the same.
const (
	ReducedSync        = "sync_interval"  // entries are acknowledged before they are on the disk
	ReducedSyncUnknown = "sync_unknown"   // whether that is so could not be read
	ReducedReplicas    = "replicas"       // there are fewer copies than a cluster could have
	ReducedCopies      = "copies_missing" // copies are not up to date, or gone
)

// Reasons are all of them.
var Reasons = []string{ReducedSync, ReducedSyncUnknown, ReducedReplicas, ReducedCopies}

// A Reduction is a way in which durability is less than promised.
type Reduction struct {
	Reason string `json:"reason"`
	Why    string `json:"why"`
	Do     string `json:"do"`
}

// String is one line for people.
func (r Reduction) String() string {
	return fmt.Sprintf("reduced durability: %s: %s", r.Why, r.Do)
}
