// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/issuer"
)

// maxSteps is how often an order may change its state within a call. Five do; a CA
// whose orders go in circles ends there.
const maxSteps = 10

// Issue is Order with the defaults.
func (ca *CA) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	return ca.Order(ctx, issuer.OrderRequest{CSR: csr, Lifetime: lifetime})
}

// Order obtains a certificate: see [issuer.Orderer]. It waits on the CA for five
// minutes at most at each step; an order that is not there by then is gone on with
// by the next call that resumes it.
func (ca *CA) Order(ctx context.Context, r issuer.OrderRequest) ([][]byte, error) {
	names, err := namesOf(r)
	if err != nil {
		return nil, fmt.Errorf("ordering at %s: %w: %w", ca.config.Name, issuer.ErrRefused, err)
	}
	s, err := ca.session(ctx)
	if err != nil {
		return nil, err
	}
	j := &job{session: s, request: r, names: names}
	o, err := j.begin(ctx)
	if err != nil {
		return nil, err
	}
	chain, err := j.finish(ctx, o)
	if err != nil {
		return nil, j.failed(err)
	}
	return chain, nil
}

// A job is one call of Order.
type job struct {
	*session
	request issuer.OrderRequest
	names   names
	url     string // the order's
	status  string // the CA's last word for its state; "" before that
}

// overError is why an order never becomes a certificate.
type overError struct{ err error }

func (e *overError) Error() string { return e.err.Error() }
func (e *overError) Unwrap() error { return e.err }

func (j *job) failed(err error) error {
	return &issuer.OrderError{URL: j.url, Status: j.status, Over: errors.As(err, new(*overError)), Err: err}
}

// begin returns the order to resume if it still can become a certificate, else a
// new one.
func (j *job) begin(ctx context.Context) (acmez.Order, error) {
	if j.url = j.request.Resume; j.url != "" {
		o, _, err := j.look(ctx)
		switch {
		case err == nil && o.Status != acmez.StatusInvalid && j.names.equal(o.Identifiers):
			return o, nil
		case err != nil && !unknownOrder(err):
			return o, j.failed(err)
		}
	}
	return j.order(ctx)
}

// unknownOrder says whether the CA does not know an order, or not as this
// account's. Boulder answers 404, others 400, 401 or 403. An answer that is not the
// CA's own says nothing: the order may have become a certificate.
func unknownOrder(err error) bool {
	var p *issuer.Problem
	if !errors.As(err, &p) || !fromCA(p) {
		return false
	}
	switch p.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	}
	return gone(err) || p.Kind() == malformed
}

// order makes a new order and has it recorded.
func (j *job) order(ctx context.Context) (acmez.Order, error) {
	wanted, err := j.wanted(ctx)
	if err != nil {
		return wanted, err
	}
	o, err := j.newOrder(ctx, wanted)
	if err != nil {
		return o, err
	}
	if !addressed(o.Location) {
		return o, fmt.Errorf("ordering at %s: the answer names the order by %s, which is no https URL of at most %d bytes", j.ca.config.Name, shown(o.Location), maxURL)
	}
	j.url = o.Location
	crash.Point(crash.OrderBegun)
	if record := j.request.Record; record != nil {
		status := o.Status
		if !slices.Contains(states, status) {
			status = "" // finish says what it is
		}
		if err := record(ctx, issuer.OrderStatus{URL: o.Location, Status: status, Expires: o.Expires}); err != nil {
			return o, j.failed(fmt.Errorf("recording the order: %w", err))
		}
	}
	return o, nil
}

// maxURL bounds an address that is written down, in bytes.
const maxURL = 1024

// addressed reports whether what a header names a resource by can be written down,
// shown and asked: a header may hold any bytes.
func addressed(location string) bool {
	u, err := url.Parse(location)
	odd := func(r rune) bool { return r <= ' ' || r > '~' } // RFC 3986 section 2
	return err == nil && u.Scheme == "https" && len(location) <= maxURL && !strings.ContainsFunc(location, odd)
}

// states are those of RFC 8555 section 7.1.6.
var states = []string{acmez.StatusPending, acmez.StatusReady, acmez.StatusProcessing, acmez.StatusValid, acmez.StatusInvalid}

// wanted returns the order to make, after all that can be known to be wrong with
// it before the CA is asked.
func (j *job) wanted(ctx context.Context) (o acmez.Order, err error) {
	if o.Profile, err = j.profile(j.request.Profile); err != nil {
		return o, fmt.Errorf("ordering at %s: %w", j.ca.config.Name, err)
	}
	if err := j.checkCAA(ctx); err != nil {
		return o, err
	}
	o.Identifiers = j.names.identifiers()
	if old := j.request.Replaces; old != nil && j.RenewalInfo != "" {
		o.Replaces, _ = certID(old) // without one the order replaces nothing
	}
	if j.ca.config.AskLifetime && j.request.Lifetime > 0 {
		notAfter := time.Now().Add(j.request.Lifetime).UTC().Truncate(time.Second)
		o.NotAfter = &notAfter
	}
	return o, nil
}

// newOrder asks for the order: without the certificate that it replaces where the
// CA does not want to hear of that, and once more with the account asked for anew
// where the CA does not know it.
func (j *job) newOrder(ctx context.Context, wanted acmez.Order) (o acmez.Order, err error) {
	for again := true; ; again = false {
		_, err = j.ca.ask(ctx, "ordering", func(ctx context.Context) (err error) {
			o, err = j.client.NewOrder(ctx, j.account, wanted)
			return err
		})
		switch {
		case err == nil && o.Location == "":
			return o, fmt.Errorf("ordering at %s: the answer does not name the order", j.ca.config.Name)
		case err == nil:
			return o, nil
		case again && wanted.Replaces != "" && notReplaced(err):
			wanted.Replaces = ""
		case again && kindOf(err) == accountDoesNotExist:
			j.ca.forget(j.account.Location)
			if j.session, err = j.ca.session(ctx); err != nil {
				return o, err
			}
		default:
			return o, accountError(err)
		}
	}
}

// notReplaced says whether an order failed because of the certificate that it was
// to replace (RFC 9773 section 5): it was replaced before, or the CA does not know
// it as this account's. A CA that fails at looking for it, as Pebble does by some
// serial numbers, does so at each attempt: that must not cost the certificate.
func notReplaced(err error) bool {
	switch kindOf(err) {
	case alreadyReplaced, malformed, unauthorized, serverInternal:
		return true
	}
	return statusOf(err) == http.StatusConflict || statusOf(err) == http.StatusNotFound
}

// finish leads the order from the state that it is in to the certificate.
func (j *job) finish(ctx context.Context, o acmez.Order) (chain [][]byte, err error) {
	for range maxSteps {
		if slices.Contains(states, o.Status) {
			j.status = o.Status
		}
		switch o.Status {
		case acmez.StatusPending:
			o, err = j.prove(ctx, o)
		case acmez.StatusReady:
			o, err = j.finalize(ctx, o)
		case acmez.StatusProcessing:
			o, err = j.await(ctx, acmez.StatusProcessing)
		case acmez.StatusValid:
			return j.download(ctx, o)
		case acmez.StatusInvalid:
			return nil, j.invalid(o)
		default:
			return nil, fmt.Errorf("the order at %s is in a state that RFC 8555 does not have: %q", j.ca.config.Name, shown(o.Status))
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the order at %s changed its state %d times and has come to nothing: it is %s; it is gone on with later", j.ca.config.Name, maxSteps, shown(o.Status))
}

func (j *job) invalid(o acmez.Order) error {
	if o.Error == nil {
		return &overError{fmt.Errorf("%s has given up the order, and does not say why", j.ca.config.Name)}
	}
	return &overError{fmt.Errorf("%s has given up the order: %w", j.ca.config.Name, withAdvice(problem(o.Error)))}
}

// look asks how the order stands.
func (j *job) look(ctx context.Context) (o acmez.Order, retryAfter time.Duration, err error) {
	seen, err := j.ca.ask(ctx, "looking at the order", func(ctx context.Context) (err error) {
		o, err = j.client.GetOrder(ctx, j.account, acmez.Order{Location: j.url})
		return err
	})
	o.Location = j.url
	return o, seen.retryAfter, err
}

// await waits until the order has left a state.
func (j *job) await(ctx context.Context, state string) (o acmez.Order, err error) {
	err = j.ca.poll(ctx, "the order, which is "+state+",", func(ctx context.Context) (bool, time.Duration, error) {
		var retryAfter time.Duration
		o, retryAfter, err = j.look(ctx)
		return err == nil && o.Status != state, retryAfter, err
	})
	return o, err
}

// finalize sends the certificate request. What the CA says of the order then counts,
// whatever else it says: a request that was lost on its way back, or that another
// process sent, is not sent twice in vain.
func (j *job) finalize(ctx context.Context, o acmez.Order) (acmez.Order, error) {
	crash.Point(crash.Validated)
	var after acmez.Order
	seen, err := j.ca.ask(ctx, "finalising the order", func(ctx context.Context) (err error) {
		after, err = j.client.FinalizeOrder(ctx, j.account, acmez.Order{Location: j.url, Finalize: o.Finalize}, j.request.CSR.Raw)
		if after.Status != "" {
			return nil // the CA has answered with the order, which the client judges, too
		}
		return err
	})
	switch {
	case err == nil:
		crash.Point(crash.Finalised)
		return after, nil
	case seen.status == http.StatusForbidden && kindOf(err) == "": // the client keeps orderNotReady to itself
		return j.await(ctx, acmez.StatusReady)
	case refused[kindOf(err)]:
		return o, &overError{err}
	}
	return o, err
}
