// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// clockSkew is how far the clocks of managers may be apart where nothing but the
// times of two entries tells which is the newer one.
const clockSkew = 5 * time.Minute

// A rank says which of several entries that stood under one key is the newest,
// whichever of them a log has that went back.
type rank struct {
	// version is that of a certificate, the epoch of the log, or the serial of the
	// list of managers.
	version event.Version
	// final says that a member is revoked, or a token used up, which nothing takes
	// back.
	final    bool
	at       time.Time
	position bus.Position
}

func rankOf(e *event.Event, at bus.Position) rank {
	r := rank{at: e.Time, position: at}
	switch b := e.Body.(type) {
	case *event.State:
		r.version = b.Version
	case *event.Certificate:
		r.version = b.Version
	case *event.Removal:
		r.version = b.Version
	case *event.LogInfo:
		r.version.Epoch = b.Epoch
	case *event.ManagerChain:
		if last, err := event.Trusted(e.Tenant, b.Sets[len(b.Sets)-1]); err == nil {
			if s, ok := last.Body.(*event.ManagerSet); ok {
				r.version.Generation = s.Serial
			}
		}
	case *event.Member:
		r.final = !b.Revoked.IsZero()
	case *event.JoinToken:
		r.final = len(b.Request) > 0
	}
	return r
}

// compare is below zero if what the entries say makes r the older one, above it if
// it makes o that, and zero if they do not tell.
func (r rank) compare(o rank) int {
	switch {
	case r.version.Less(o.version):
		return -1
	case o.version.Less(r.version):
		return 1
	case r.final == o.final:
		return 0
	case r.final:
		return 1
	}
	return -1
}

// newer reports whether r is newer than o, for who does not know in which order
// they came. In one log that is the order of their places, unless it went back in
// between and the times say otherwise.
func (r rank) newer(o rank) bool {
	if n := r.compare(o); n != 0 {
		return n > 0
	}
	if r.position.Log == o.position.Log && r.at.Sub(o.at).Abs() <= clockSkew {
		return r.position.Seq > o.position.Seq
	}
	return cmp.Compare(r.at.UnixNano(), o.at.UnixNano()) > 0
}
