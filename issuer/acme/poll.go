// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// Bounds of waiting.
const (
	// MaxRetryAfter is the furthest that a CA's Retry-After is obeyed. Whoever asks
	// once a day troubles no CA, and a mistaken header does not cost a certificate.
	MaxRetryAfter = 24 * time.Hour

	firstPoll = time.Millisecond
	maxPoll   = 10 * time.Second
	// maxWait is the longest wait for the next look within one call.
	maxWait = time.Minute
	// patience is how long a state is waited for within one call. Let's Encrypt takes
	// seconds; Boulder gives up a validation after some twenty.
	patience = 5 * time.Minute
)

// Adaptive is how long to wait before the next look at something that has been
// waited for so long: an eighth of that, at least 1 ms and at most 10 s. A look is
// thus late by an eighth at most, and a state that takes ten seconds costs some
// sixty looks at a CA that is near and does not say when to look again: each
// request's own time counts as waited.
func Adaptive(waited time.Duration) time.Duration {
	return min(max(waited/8, firstPoll), maxPoll)
}

// poll calls look until it says that it is done. look returns how long the CA
// wants not to be asked; 0 if it did not say. what names what is waited for.
func (ca *CA) poll(ctx context.Context, what string, look func(ctx context.Context) (done bool, retryAfter time.Duration, err error)) error {
	began := time.Now()
	timer := time.NewTimer(ca.config.Poll(0))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s at %s: %w", what, ca.config.Name, ctx.Err())
		case <-timer.C:
		}
		done, wanted, err := look(ctx)
		if done || err != nil {
			return err
		}
		waited := time.Since(began)
		if wanted > maxWait || waited >= ca.patience {
			return ca.tooLong(what, waited, wanted)
		}
		if wanted == 0 {
			wanted = ca.config.Poll(waited)
		}
		timer.Reset(wanted)
	}
}

// tooLong ends a wait whose end another call can see.
func (ca *CA) tooLong(what string, waited, wanted time.Duration) error {
	err := fmt.Errorf("waiting for %s at %s: it is not there after %s; it is looked for again later", what, ca.config.Name, waited.Round(time.Second))
	if wanted == 0 {
		return err
	}
	return &issuer.Hint{After: time.Now().Add(wanted), Err: err}
}
