// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// Limits of an order and of what a CA says.
const (
	// MaxIssuers is how many issuers a certificate can have: the first, and those
	// that stand in.
	MaxIssuers = 8
	// MaxProblems is how many parts of a problem document are kept.
	MaxProblems = 32
	// maxRequest bounds a certificate request, in bytes.
	maxRequest = 64 << 10
)

// An Order is what is under way at a CA whose orders outlive a call. It is
// written down before it can become a certificate, so that whoever takes over
// goes on with the same one.
type Order struct {
	// Generation is the one that it is for.
	Generation uint64
	// Issuer is its name in the shared configuration.
	Issuer string
	// URL is the order's, and Status what the CA said of it last (RFC 8555 section
	// 7.1.6).
	URL, Status string
	At, Expires time.Time
	// Request is the certificate request, PKCS #10 in DER, and Sealed its private
	// key, PKCS #8, sealed to the managers.
	Request, Sealed []byte
}

const (
	orderGeneration tag = iota + 1
	orderIssuer
	orderURL
	orderStatus
	orderAt
	orderExpires
	orderRequest
	orderSealed
)

func (o *Order) fields(f *codec) {
	f.uint(orderGeneration, &o.Generation)
	f.string(orderIssuer, &o.Issuer, maxWord)
	f.string(orderURL, &o.URL, maxURL)
	f.string(orderStatus, &o.Status, maxWord)
	f.time(orderAt, &o.At)
	f.time(orderExpires, &o.Expires)
	f.bytes(orderRequest, &o.Request)
	f.bytes(orderSealed, &o.Sealed)
}

func (o *Order) check() error {
	switch {
	case o.Generation == 0:
		return errors.New("an order for no generation")
	case len(o.URL) > maxURL:
		return fmt.Errorf("an order's address of %d bytes: at most %d are kept", len(o.URL), maxURL)
	case len(o.Request) > maxRequest:
		return fmt.Errorf("a certificate request of %d bytes: at most %d are kept", len(o.Request), maxRequest)
	}
	return CheckName(o.Issuer)
}

// Seal seals the request's private key (PKCS #8 DER) of the certificate id to
// the managers.
func (o *Order) Seal(tenant, id string, to *seal.PublicKey, pkcs8 []byte) (err error) {
	o.Sealed, err = to.Seal(o.associated(tenant, id), pkcs8)
	return err
}

// Open returns the request's private key (PKCS #8 DER).
func (o *Order) Open(tenant, id string, keys []*seal.PrivateKey) ([]byte, error) {
	return seal.Open(keys, o.associated(tenant, id), o.Sealed)
}

func (o *Order) associated(tenant, id string) []byte {
	return associated(TypeState, tenant, StateKey(id), func(f *codec) {
		f.uint(orderGeneration, &o.Generation)
		f.bytes(orderRequest, &o.Request)
	})
}

// A Problem is what a CA said of why something failed: a problem document (RFC
// 9457, formerly RFC 7807), and its parts for single names (RFC 8555 section
// 6.7.1).
type Problem struct {
	Type, Title, Detail, Instance string
	Status                        uint64 // of HTTP; 0 if there was none
	// Name is the identifier that it is about; "" for the whole order.
	Name string
	// Parts have no parts of their own.
	Parts []Problem
}

const (
	problemType tag = iota + 1
	problemTitle
	problemDetail
	problemInstance
	problemStatus
	problemName
	problemPart
)

func (p *Problem) fields(f *codec) {
	(*problemWithoutParts)(p).fields(f)
	if !f.decoding || f.tag != problemPart {
		messages(f, problemPart, &p.Parts, MaxProblems)
		return
	}
	var part problemWithoutParts
	f.message(problemPart, &part)
	add(f, &p.Parts, MaxProblems, Problem(part))
}

// problemWithoutParts keeps what was signed from nesting without end.
type problemWithoutParts Problem

func (p *problemWithoutParts) fields(f *codec) {
	f.string(problemType, &p.Type, maxURL)
	f.string(problemTitle, &p.Title, maxURL)
	f.string(problemDetail, &p.Detail, maxText)
	f.string(problemInstance, &p.Instance, maxURL)
	f.uint(problemStatus, &p.Status)
	f.string(problemName, &p.Name, maxName)
}

// Fit cuts what came from a CA to what a state has room for, beside a chain and a
// history. A longer address of an order is left out.
func (x *Failure) Fit() {
	if len(x.Order) > maxURL {
		x.Order = ""
	}
	if x.Problem != nil {
		x.Problem.fit()
	}
}

func (p *Problem) fit() {
	p.cut(maxText)
	p.Parts = p.Parts[:min(len(p.Parts), MaxProblems)]
	for i := range p.Parts {
		p.Parts[i].Parts = nil
		p.Parts[i].cut(maxPart)
	}
}

// maxPart bounds the detail of a problem's part when it is written, in bytes.
const maxPart = 512

func (p *Problem) cut(detail int) {
	for s, most := range map[*string]int{&p.Type: maxName, &p.Title: maxName, &p.Instance: maxPart, &p.Detail: detail, &p.Name: maxName} {
		if len(*s) > most {
			*s = (*s)[:most]
		}
		*s = strings.ToValidUTF8(*s, "")
	}
}

func (p *Problem) check() error {
	if len(p.Parts) > MaxProblems {
		return fmt.Errorf("%d parts of a problem: at most %d are kept", len(p.Parts), MaxProblems)
	}
	for i := range p.Parts {
		if len(p.Parts[i].Parts) > 0 {
			return errors.New("a part of a problem with parts")
		}
	}
	return nil
}

// Renewal is what the CA of the newest generation says of when to renew it (RFC
// 9773).
type Renewal struct {
	// Generation is the one that it is of.
	Generation uint64
	// Start and End are the suggested window; both are zero if the CA gave none.
	Start, End time.Time
	// Explanation is the address of a page that says why; "" if there is none.
	Explanation string
	// Asked is when the CA was asked last, and Next when it is to be asked again.
	Asked, Next time.Time
}

const (
	renewalGeneration tag = iota + 1
	renewalStart
	renewalEnd
	renewalExplanation
	renewalAsked
	renewalNext
)

func (r *Renewal) fields(f *codec) {
	f.uint(renewalGeneration, &r.Generation)
	f.time(renewalStart, &r.Start)
	f.time(renewalEnd, &r.End)
	f.string(renewalExplanation, &r.Explanation, maxURL)
	f.time(renewalAsked, &r.Asked)
	f.time(renewalNext, &r.Next)
}

// Fit leaves out what came from a CA and has no room.
func (r *Renewal) Fit() {
	if len(r.Explanation) > maxURL {
		r.Explanation = ""
	}
}

// A Hold is until when, and why, nothing is asked of a CA that would refuse it:
// a budget is used up. It is no failure.
type Hold struct {
	Until  time.Time
	Reason string
}

const (
	holdUntil tag = iota + 1
	holdReason
)

func (h *Hold) fields(f *codec) {
	f.time(holdUntil, &h.Until)
	f.string(holdReason, &h.Reason, maxText)
}

// A Pause says that nothing is renewed until somebody says otherwise.
type Pause struct {
	At time.Time
	// Reason is what the one who paused it gave; it may be empty.
	Reason string
}

const (
	pauseAt tag = iota + 1
	pauseReason
)

func (p *Pause) fields(f *codec) {
	f.time(pauseAt, &p.At)
	f.string(pauseReason, &p.Reason, maxText)
}
