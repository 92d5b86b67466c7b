// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// A session keeps the token that requests are sent with.
type session struct {
	auth   Auth
	signed *api.Client // sends the token
	entry  *api.Client // guarded by turn; logs in, and sends no token between its calls

	turn      chan struct{} // holds one value while somebody logs in or renews
	grant     grant         // guarded by turn
	unwrapped string        // guarded by turn; the secret that came wrapped

	ctx    context.Context // ends with Close; for what the timer does
	cancel context.CancelFunc
	mu     sync.Mutex
	timer  *time.Timer    // guarded by mu; nil unless the token is kept alive
	work   sync.WaitGroup // of the timer
}

// A grant is a token and how long it is good.
type grant struct {
	token     string
	renewable bool
	ttl       time.Duration // when it was given; 0 if it does not end, or nobody said
	ends      time.Time     // zero if it does not end, or nobody said
	known     bool          // Vault said that it is good
}

func newSession(auth Auth, signed, entry *api.Client) *session {
	s := &session{auth: auth, signed: signed, entry: entry, turn: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// nearEnd reports whether less than a third of its time is left.
func (g grant) nearEnd() bool { return !g.ends.IsZero() && time.Until(g.ends) <= g.ttl/3 }

// over reports whether it has ended, as far as the clock here says.
func (g grant) over() bool { return !g.ends.IsZero() && time.Until(g.ends) <= 0 }

// open returns a grant that is good, logging in or renewing if that is needed. One
// does so at a time, and others wait.
func (s *session) open(ctx context.Context) (grant, error) {
	if err := s.enter(ctx); err != nil {
		return grant{}, err
	}
	defer s.leave()
	return s.refreshed(ctx)
}

// enter returns when it is the caller's turn. After an error it is not.
func (s *session) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // select would take either
		return err
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) leave() { <-s.turn }

// refreshed is open for whoever has the turn. While the old token is good, it stands
// in for one that could not be had.
func (s *session) refreshed(ctx context.Context) (grant, error) {
	if s.grant.token != "" && !s.grant.nearEnd() {
		return s.grant, nil
	}
	var err error
	if s.grant.token != "" && s.grant.renewable && !s.grant.over() {
		if err = s.renew(ctx); err == nil && (!s.grant.nearEnd() || s.auth.once()) {
			return s.grant, nil
		}
	}
	old := s.grant
	if fresh, loginErr := s.login(ctx); loginErr == nil {
		s.keep(fresh)
		return fresh, nil
	} else if err == nil {
		err = loginErr
	}
	if old.token != "" && !old.over() && ctx.Err() == nil {
		return old, nil
	}
	return grant{}, err
}

// again returns another grant than one that was refused, or the error why there is
// none: errSame if it would be the same.
func (s *session) again(ctx context.Context, refused grant) (grant, error) {
	if err := s.enter(ctx); err != nil {
		return grant{}, err
	}
	defer s.leave()
	if s.grant.token == refused.token {
		fresh, err := s.login(ctx)
		switch {
		case err != nil:
			return grant{}, err
		case fresh.token == refused.token:
			return fresh, errSame
		}
		s.keep(fresh)
	}
	return s.grant, nil
}

// errSame means that there is no other token than the refused one.
var errSame = errors.New("there is no other token")

func (s *session) keep(g grant) {
	s.grant = g
	s.signed.SetToken(g.token)
	s.wait()
}

// login asks for a token. It does not replace the one there is.
func (s *session) login(ctx context.Context) (grant, error) {
	if a, ok := s.auth.(AppRole); ok && a.Wrapped && s.unwrapped == "" {
		if err := s.unwrap(ctx, a); err != nil {
			return grant{}, err
		}
	}
	p, err := s.auth.parameters(s.unwrapped)
	if err != nil {
		return grant{}, fmt.Errorf("logging in: %w", err)
	}
	if s.auth.mount() == "" {
		return s.lookUp(ctx, p["token"].(string))
	}
	path := "auth/" + s.auth.mount() + "/login"
	ctx, seen := withCall(ctx)
	answer, err := s.entry.Logical().WriteWithContext(ctx, path, p)
	if err == nil && (answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "") {
		err = errors.New("the answer has no token: look whether an auth method is mounted there")
	}
	if err != nil {
		return grant{}, fmt.Errorf("logging in at %s: %w", path, explainLogin(ctx, err, seen, s.auth))
	}
	return granted(answer.Auth), nil
}

// granted is what came of a login or of renewing.
func granted(a *api.SecretAuth) grant {
	g := grant{token: a.ClientToken, renewable: a.Renewable, known: true}
	if a.LeaseDuration > 0 {
		g.ttl = time.Duration(a.LeaseDuration) * time.Second
		g.ends = time.Now().Add(g.ttl)
	}
	return g
}

// lookUp asks how long a token is good that came from elsewhere. That may be
// forbidden, and then it is used as it is.
func (s *session) lookUp(ctx context.Context, token string) (grant, error) {
	s.entry.SetToken(token)
	defer s.entry.ClearToken()
	ctx, seen := withCall(ctx)
	answer, err := s.entry.Auth().Token().LookupSelfWithContext(ctx)
	if status(err) == 403 {
		return grant{token: token}, nil
	}
	if err != nil {
		return grant{}, fmt.Errorf("looking up the token: %w", explain(ctx, err, seen))
	}
	g := grant{token: token, known: true}
	if g.renewable, err = answer.TokenIsRenewable(); err != nil {
		return grant{}, fmt.Errorf("looking up the token: %w", err)
	}
	if g.ttl, err = answer.TokenTTL(); err != nil {
		return grant{}, fmt.Errorf("looking up the token: %w", err)
	}
	if g.ttl > 0 {
		g.ends = time.Now().Add(g.ttl)
	}
	return g, nil
}

// renew has the token last longer.
func (s *session) renew(ctx context.Context) error {
	ctx, seen := withCall(ctx)
	answer, err := s.signed.Auth().Token().RenewSelfWithContext(ctx, 0) // as long as it was
	if err == nil && (answer == nil || answer.Auth == nil) {
		err = errors.New("the answer has no token")
	}
	if err != nil {
		return fmt.Errorf("renewing the token: %w", explain(ctx, err, seen))
	}
	g := granted(answer.Auth)
	g.token, g.ttl = s.grant.token, max(g.ttl, s.grant.ttl)
	s.keep(g)
	return nil
}

// unwrap takes the secret ID out of its wrapping, which works once.
func (s *session) unwrap(ctx context.Context, a AppRole) error {
	token, err := given(a.SecretID, a.SecretIDFile)
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	s.entry.SetToken(token)
	defer s.entry.ClearToken()
	ctx, seen := withCall(ctx)
	answer, err := s.entry.Logical().UnwrapWithContext(ctx, "")
	if err != nil {
		err = explain(ctx, err, seen)
		if code := status(err); code == 400 || code == 403 {
			err = fmt.Errorf("%w: the wrapping token has ended, or somebody has unwrapped it before; unless that was this program, revoke the secret ID; then wrap a new one", err)
		}
		return fmt.Errorf("unwrapping the secret ID: %w", err)
	}
	if answer != nil {
		s.unwrapped, _ = answer.Data["secret_id"].(string)
	}
	if s.unwrapped == "" {
		return errors.New("unwrapping the secret ID: something else was wrapped")
	}
	return nil
}
