// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/issuer"
)

// CA is the way to one ACME CA by one account. All methods may be called by any
// number of goroutines at once.
type CA struct {
	config    Config
	transport *transport
	http      *http.Client
	resolver  *resolve.Resolver
	patience  time.Duration // how long a state is waited for

	// turn is held while the directory or the account are asked for.
	turn chan struct{}
	mu   sync.Mutex // after turn
	// account is as far as it is known here. It is replaced, never changed.
	account   *Account   // guarded by mu
	known     *directory // guarded by turn
	failure   error      // of the last one in turn; guarded by turn
	failureAt time.Time  // guarded by turn
}

var (
	_ issuer.Orderer         = (*CA)(nil)
	_ issuer.Revoker         = (*CA)(nil)
	_ issuer.RenewalInformer = (*CA)(nil)
)

// New returns the way to a CA. It does not ask it anything.
func New(c Config) (*CA, error) {
	complete, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("configuring the ACME issuer %s: %w", c.Name, err)
	}
	t := newTransport(complete)
	return &CA{
		config:    complete,
		transport: t,
		http:      &http.Client{Transport: t, CheckRedirect: checkRedirect},
		resolver:  resolve.New(complete.Resolvers),
		patience:  complete.Patience,
		turn:      make(chan struct{}, 1),
		account:   complete.Account,
	}, nil
}

// Close gives up the idle connections to the CA. What is under way goes on.
func (ca *CA) Close() { ca.transport.base.CloseIdleConnections() }

// A session is what a call works with: nothing of it changes.
type session struct {
	ca *CA
	*directory
	account acmez.Account
}

// session returns one with an account that the CA knows.
func (ca *CA) session(ctx context.Context) (s *session, err error) {
	err = ca.inTurn(ctx, func() (err error) {
		s, err = ca.open(ctx)
		return err
	})
	return s, err
}

// inTurn asks for the directory or the account, one after the other. Who waited while
// that failed has the same error, instead of waiting as long once more.
func (ca *CA) inTurn(ctx context.Context, ask func() error) error {
	began := time.Now()
	if err := ca.lock(ctx); err != nil {
		return err
	}
	defer ca.unlock()
	if ca.failure != nil && ca.failureAt.After(began) {
		return ca.failure
	}
	err := ask()
	if ctx.Err() == nil {
		ca.failure, ca.failureAt = err, time.Now()
	}
	return err
}

func (ca *CA) open(ctx context.Context) (*session, error) {
	d, err := ca.directory(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{ca: ca, directory: d}
	account := ca.current()
	if account.URL == "" || account.Next != nil {
		if account, err = s.register(ctx, account); err != nil {
			return nil, err
		}
	}
	s.use(account)
	return s, nil
}

// use signs what the session asks from now on by the account.
func (s *session) use(a *Account) {
	s.account = acmez.Account{PrivateKey: a.Key, Location: a.URL}
}

func (ca *CA) lock(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting for the directory or the account of %s: %w", ca.config.Name, ctx.Err())
	case ca.turn <- struct{}{}:
		return nil
	}
}

func (ca *CA) unlock() { <-ca.turn }

// current returns the account as it is known.
func (ca *CA) current() *Account {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.account
}

func (ca *CA) setAccount(a *Account) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.account = a
}

// ask calls the protocol's client: doing is what for, as in "ordering". The error
// says what the CA said, and when it wants to be asked again.
func (ca *CA) ask(ctx context.Context, doing string, f func(ctx context.Context) error) (*call, error) {
	inner, seen := withCall(ctx)
	err := f(inner)
	if err == nil {
		return seen, nil
	}
	doing += " at " + ca.config.Name
	if ctx.Err() != nil {
		return seen, fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	err = fmt.Errorf("%s: %w", doing, explain(err))
	if seen.status >= 400 && seen.retryAfter > 0 {
		err = &issuer.Hint{After: time.Now().Add(seen.retryAfter), Err: err}
	}
	return seen, err
}
