// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn"
)

// patience is how long a handshake waits for the first certificate. Browsers and curl
// wait longer; a CA takes some seconds.
const patience = 30 * time.Second

// errClosed is why nothing is waited for any more.
var errClosed = errors.New("the server is closed")

// certificate is the GetCertificate of configs: the Store's, but where a name is to be
// served and cannot be yet, it waits.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := s.store.GetCertificate(hello)
	var unknown *keyturn.UnknownNameError
	if err == nil || !errors.As(err, &unknown) || !s.lists(hello.ServerName) {
		return cert, err
	}
	ctx, cancel := context.WithTimeout(hello.Context(), patience)
	defer cancel()
	if err := s.first.wait(ctx); err != nil {
		return nil, fmt.Errorf("acme: there is no certificate for %q yet: %w", hello.ServerName, err)
	}
	return s.store.GetCertificate(hello)
}

// A gate is closed while a certificate is to be had soon, open once it is there, and
// has an error while it cannot be had.
type gate struct {
	mu     sync.Mutex
	open   bool          // guarded by mu
	err    error         // guarded by mu
	change chan struct{} // guarded by mu; closed at the next change
}

func (g *gate) init() { g.change = make(chan struct{}) }

// set opens the gate, for good; or gives those who wait an error, unless it is nil.
func (g *gate) set(open bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.err = g.open || open, err
	close(g.change)
	g.change = make(chan struct{})
}

func (g *gate) look() (open bool, change <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.change, g.err
}

// wait returns nil when the gate is open, and at once the error that it has.
func (g *gate) wait(ctx context.Context) error {
	for {
		open, change, err := g.look()
		if open {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
