// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// errAgain ends an attempt after which the host logs in as itself.
var errAgain = errors.New("replica: logging in with what was granted")

// errPermanent marks what no other attempt mends.
type errPermanent struct{ error }

func (e errPermanent) Unwrap() error { return e.error }

// granted asks, and waits for the member's entry with keys in it.
func (j *join) granted(ctx context.Context) (*event.Member, error) {
	if j.member != nil && len(j.member.Keys) > 0 {
		return j.member, nil
	}
	var retry backoff
	for {
		err := j.attempt(ctx)
		permanent := errPermanent{}
		switch {
		case err == nil:
			return j.member, nil
		case errors.As(err, &permanent):
			return nil, permanent.error
		case ctx.Err() != nil:
			return nil, j.unanswered(ctx.Err())
		case j.member == nil && !time.Now().Before(j.token.Expires):
			return nil, fmt.Errorf("%w; until then: %s", j.expired(), j.said)
		case errors.Is(err, errAgain):
			retry = backoff{}
			continue
		}
		j.tell("the bus at %s cannot be used; trying on: %v", j.where(), err)
		if !retry.wait(ctx) {
			return nil, j.unanswered(ctx.Err())
		}
	}
}

// attempt uses one connection to the bus. It returns nil when j.member has
// keys.
func (j *join) attempt(ctx context.Context) error {
	if j.said == "" { // else it says why the last attempt failed
		j.tell("reaching the bus at %s", j.where())
	}
	if j.member == nil {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, j.token.Expires)
		defer stop()
	}
	conn, err := bus.OpenDir(string(j.dir), bus.Options{Tenant: j.token.Tenant, Name: j.name, Logger: j.logger})
	if err != nil {
		return errPermanent{fmt.Errorf("replica: joining: %w", err)}
	}
	defer conn.Close()
	if err := conn.Connected(ctx); err != nil {
		return err
	}
	if j.member == nil {
		if err := j.ask(ctx, conn); err != nil {
			return err
		}
	}
	j.tell("%s", j.missing())
	for u, err := range conn.Follow(ctx, event.MemberKey(j.token.Group, j.token.ID), bus.Position{}) {
		if err != nil {
			return err
		}
		if u.CaughtUp {
			continue
		}
		if done, err := j.answer(u.Data); done || err != nil {
			return err
		}
	}
	return errors.New("the bus ended the stream")
}

// ask appends the request.
func (j *join) ask(ctx context.Context, log bus.Log) error {
	_, err := log.Append(ctx, event.JoinKey(j.token.ID), bus.Position{}, j.request)
	crash.Point(crash.Asked)
	conflict := (*bus.ConflictError)(nil)
	if errors.As(err, &conflict) {
		return errPermanent{ErrTokenUsed}
	}
	return err
}

// answer takes a member's entry and reports whether it has keys.
func (j *join) answer(data []byte) (done bool, err error) {
	m, err := j.openMember(data)
	if errors.As(err, new(errPermanent)) {
		return false, err
	}
	if err != nil {
		j.logger.Error("an answer on the bus is refused; waiting for another", "error", err)
		return false, nil
	}
	if err := j.dir.write(answerFile, data); err != nil {
		return false, errPermanent{err}
	}
	crash.Point(crash.AnswerKept)
	first := j.member == nil
	j.member = m
	switch {
	case len(m.Keys) > 0:
		return true, nil
	case first:
		if err := j.dir.writeCreds(j.driver, m.Grant, j.secret); err != nil {
			return false, errPermanent{err}
		}
		return false, errAgain
	}
	return false, nil
}

// missing says who has not answered yet, and what to do about it.
func (j *join) missing() string {
	if j.member == nil {
		return "no manager has taken the request: is `keyturn serve` running?"
	}
	return fmt.Sprintf("no manager that holds the key of group %[1]s has answered: is `keyturn serve` running with it, or run `keyturn group grant %[1]s`", j.token.Group)
}

// unanswered is what Join returns when it could not wait any longer.
func (j *join) unanswered(err error) error {
	return fmt.Errorf("replica: joining: %s: %w", j.said, err)
}
