// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/solver"
)

const (
	// maxAtOnce is how many authorisations of one order are under way at once.
	maxAtOnce = 20
	// maxAuthorizations is the most of one order. CAs take 100 names or fewer.
	maxAuthorizations = 1000
	// cleanTime is how long an answer may take to be taken away again.
	cleanTime = 2 * time.Minute
)

// prove proves control of all names, and waits until the CA says that the order is
// no longer pending. All authorisations run to their end, so that the error tells
// of every name.
func (j *job) prove(ctx context.Context, o acmez.Order) (acmez.Order, error) {
	if len(o.Authorizations) > maxAuthorizations {
		return o, fmt.Errorf("the order at %s has %s for %s", j.ca.config.Name, plural.Of(len(o.Authorizations), "authorisation"), plural.Of(len(j.names), "name"))
	}
	errs := make([]error, len(o.Authorizations))
	free := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for i, url := range o.Authorizations {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			errs[i] = j.authorize(ctx, url)
		})
	}
	wg.Wait()
	if err := j.join(errs); err != nil {
		return o, err
	}
	return j.await(ctx, acmez.StatusPending)
}

// join makes one error of those of the authorisations: the CA's problems become
// parts of one.
func (j *job) join(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	var problems []issuer.Problem
	for _, err := range errs {
		if failed := new(invalidError); errors.As(err, &failed) {
			problems = append(problems, *failed.problem)
		}
	}
	if len(problems) != len(errs) || len(problems) < 2 {
		return joined(errs)
	}
	whole := &issuer.Problem{
		Type:   acmez.ProblemTypeCompound,
		Detail: fmt.Sprintf("control of %d of %s could not be proven", len(problems), plural.Of(len(j.names), "name")),
		Parts:  problems,
	}
	return &overError{fmt.Errorf("proving control of the names to %s: %w", j.ca.config.Name, withAdvice(whole))}
}

// joined are several errors as one line.
func joined(errs []error) error {
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	all := errors.Join(errs...)
	return &plain{strings.ReplaceAll(all.Error(), "\n", "; "), all}
}

// An invalidError is an authorisation that the CA has given up.
type invalidError struct{ problem *issuer.Problem }

func (e *invalidError) Error() string { return withAdvice(e.problem).Error() }
func (e *invalidError) Unwrap() error { return withAdvice(e.problem) }

// authorize proves control of one name.
func (j *job) authorize(ctx context.Context, url string) error {
	authz, _, err := j.lookAt(ctx, url)
	if err != nil {
		return err
	}
	if over, err := j.judge(authz); over {
		return err
	}
	c, err := j.pick(authz)
	if err != nil {
		return err
	}
	done, err := j.ca.config.Solve(ctx, c.answer)
	if err != nil {
		return fmt.Errorf("answering %s for %s: %w", c.Type, c.name, err)
	}
	crash.Point(crash.Presented)
	defer j.clean(ctx, c, done)
	return j.validate(ctx, url, c)
}

// startedTime is how long the outcome of a validation is waited for that the CA
// says was begun already.
const startedTime = 5 * time.Second

// validate asks the CA to look at the answer, and waits for what it finds.
func (j *job) validate(ctx context.Context, url string, c *picked) error {
	var initiated error
	if c.Status == acmez.StatusPending { // else an earlier call has asked
		_, initiated = j.ca.ask(ctx, "asking for the validation of "+c.name, func(ctx context.Context) error {
			_, err := j.client.InitiateChallenge(ctx, j.account, c.Challenge)
			crash.Point(crash.Initiated)
			return err
		})
	}
	// A CA may call malformed what an earlier call, or a lost answer, has asked for.
	patient := time.Now().Add(startedTime)
	return j.ca.poll(ctx, "the validation of "+c.name, func(ctx context.Context) (bool, time.Duration, error) {
		authz, retryAfter, err := j.lookAt(ctx, url)
		if err != nil {
			return false, 0, err
		}
		over, err := j.judge(authz)
		if !over && initiated != nil && !(kindOf(initiated) == malformed && time.Now().Before(patient)) {
			return true, 0, initiated
		}
		return over, retryAfter, err
	})
}

// clean takes the answer away again, even where the order was given up.
func (j *job) clean(ctx context.Context, c *picked, done func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if err := done(ctx); err != nil {
		j.ca.config.Logger.WarnContext(ctx, "the answer to a challenge could not be taken away", "issuer", j.ca.config.Name, "name", c.name, "challenge", c.Type, "error", err)
	}
}

// lookAt asks how an authorisation stands.
func (j *job) lookAt(ctx context.Context, url string) (a acmez.Authorization, retryAfter time.Duration, err error) {
	seen, err := j.ca.ask(ctx, "looking at an authorisation", func(ctx context.Context) (err error) {
		a, err = j.client.GetAuthorization(ctx, j.account, url)
		return err
	})
	a.Identifier = normalID(a.Identifier)
	return a, seen.retryAfter, err
}

// judge says whether an authorisation has come to its end, and to which.
func (j *job) judge(a acmez.Authorization) (over bool, err error) {
	switch a.Status {
	case acmez.StatusPending:
		return false, nil
	case acmez.StatusValid:
		return true, nil
	case acmez.StatusInvalid, acmez.StatusExpired, acmez.StatusDeactivated, acmez.StatusRevoked:
		return true, &overError{fmt.Errorf("proving control of %s to %s: %w", shown(a.IdentifierValue()), j.ca.config.Name, &invalidError{why(a)})}
	}
	return true, fmt.Errorf("the authorisation of %s at %s is in a state that RFC 8555 does not have: %q",
		shown(a.IdentifierValue()), j.ca.config.Name, shown(a.Status))
}

// why returns the problem of an authorisation that has failed.
func why(a acmez.Authorization) *issuer.Problem {
	for _, c := range a.Challenges {
		if c.Error != nil {
			p := problem(c.Error)
			p.Name = a.IdentifierValue()
			return p
		}
	}
	return &issuer.Problem{Type: acmez.ProblemTypeUnauthorized, Name: a.IdentifierValue(), Detail: "the authorisation is " + shown(a.Status)}
}

// A picked challenge is the one of an authorisation that is answered.
type picked struct {
	acmez.Challenge
	name   string // as it was ordered, with "*."
	answer solver.Challenge
}

// tokenForm is that of RFC 8555 section 8.1: base64url of at least 128 bits.
// Solvers make paths and records of a token.
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]{22,128}$`)

// pick returns the challenge to answer. The CA gets no answer for a name that was
// not ordered.
func (j *job) pick(a acmez.Authorization) (*picked, error) {
	name := a.IdentifierValue()
	if !j.names.has(name) {
		return nil, fmt.Errorf("%s wants control of %s proven, which was not ordered", j.ca.config.Name, shown(name))
	}
	kind := j.challengeFor(a.Identifier, a.Wildcard)
	for _, c := range a.Challenges {
		if c.Type != kind {
			continue
		}
		if !tokenForm.MatchString(c.Token) {
			return nil, fmt.Errorf("the token of %s for %s is not base64url of 16 to 96 bytes, as RFC 8555 has it", kind, name)
		}
		thumbprint, err := j.account.Thumbprint()
		if err != nil {
			return nil, fmt.Errorf("answering %s for %s: %w", kind, name, err)
		}
		// The client believes a key authorization that the CA sends along, and a CA that
		// chose it would have the name proven to another CA, for an account of its own.
		c.KeyAuthorization = c.Token + "." + thumbprint
		return &picked{c, name, solver.Challenge{
			Type: kind, Name: a.Identifier.Value, Token: c.Token, KeyAuthorization: c.KeyAuthorization,
			Group: j.request.Group, Expires: a.Expires,
		}}, nil
	}
	return nil, fmt.Errorf("%w: %s does not take %s for %s; it takes %s", issuer.ErrRefused, j.ca.config.Name, kind, name, offered(a))
}

func offered(a acmez.Authorization) string {
	var types []string
	for _, c := range a.Challenges {
		if slices.Contains(solver.Types(), c.Type) {
			types = append(types, c.Type)
		}
	}
	if len(types) == 0 {
		return "nothing that Keyturn can answer"
	}
	slices.Sort(types)
	return strings.Join(types, ", ") + ": choose among them"
}
