// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A server that is cut off from the others of its cluster, or hangs, keeps its
// clients and does nothing for them. Who gets no answer for this long goes to the
// next of the servers that he knows. It is longer than a healthy cluster needs to
// choose a new leader, which is no reason to go.
const (
	unansweredTime = 12 * time.Second
	// stayTime is how long he stays there at least.
	stayTime = 20 * time.Second
	// apartTime is how far apart two requests without an answer may be to be counted
	// together.
	apartTime = time.Minute
)

// unanswered is what is known of requests that nobody answered.
type unanswered struct {
	mu          sync.Mutex
	first, last time.Time // guarded by mu; zero once one is answered
	moved       time.Time // guarded by mu
}

// answered takes note of how a request ended, and leaves a server that does not
// answer any more, where there are others.
func (c *conn) answered(err error) {
	if c.elsewhere == nil || !c.nc.IsConnected() || errors.Is(err, context.Canceled) {
		return
	}
	if !c.quiet.tooLong(noAnswer(err), time.Now()) {
		return
	}
	if urls, err := c.elsewhere.urls(); err == nil && len(urls) > 1 {
		_ = c.nc.ForceReconnect() // fails where the connection was closed
	}
}

// tooLong reports whether it is time to go.
func (u *unanswered) tooLong(silent bool, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !silent {
		u.first = time.Time{}
		return false
	}
	if u.first.IsZero() || now.Sub(u.last) > apartTime {
		u.first = now
	}
	u.last = now
	if now.Sub(u.first) < unansweredTime || now.Sub(u.moved) < stayTime {
		return false
	}
	u.first, u.moved = time.Time{}, now
	return true
}

// noAnswer reports whether a request failed since nobody was there who could have
// answered it.
func noAnswer(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, errSilent) || errors.As(err, &api) && api.Code >= 500
}
