// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

// A faultCase is something that goes wrong at a CA while a certificate is renewed,
// and what has to be so afterwards.
type faultCase struct {
	title string
	page  string // the row of docs/acme.md that tells of it: how it begins
	path  string
	fault fault
	begin func(*testing.T, *scene) // in the place of path and fault, or besides
	over  func(*testing.T, *scene) // what ends it besides
	// proven: the CA still has the proof of the name, and wants no other.
	proven bool

	kind    string        // the problem's that is noted; "" is none
	status  uint64        // and its status
	after   time.Duration // noted as the CA's Retry-After; 0 is none
	next    time.Duration // the wait for the next attempt; 0 is a minute
	refused bool          // asking again is of no use
	ordered bool          // an order was made, and drawn for; unless the CA has signed, the failure names it
	kept    bool          // and that stays, and is gone on with
	says    string        // what to do is in it
	most    int           // requests that met the fault; 0 is any
	signed  bool          // the CA has signed something
}

// faultCases are those of all tests of faults.
func faultCases() []faultCase {
	const down, limit = "the CA is down", "the CA says that a limit is used up"
	const endless, wrong = "the CA never finishes an order", "what the CA signed is not"
	elsewhere := "it is tried again later; if it stays so, see whether the CA can be reached from here"
	return []faultCase{
		{
			title: "429 with Retry-After", page: limit, path: pathNewOrder, fault: says(429, "rateLimited", "too many certificates", "Retry-After: 7200"),
			kind: "rateLimited", status: 429, after: 2 * time.Hour, next: 2 * time.Hour, most: 1,
			says: "too many certificates (rateLimited): one of the CA's limits is used up; it is tried again when the CA allows it",
		},
		{
			title: "429 for a year", page: limit, path: pathNewOrder, fault: says(429, "rateLimited", "too many certificates", "Retry-After: 31536000"),
			kind: "rateLimited", status: 429, after: 24 * time.Hour, next: 24 * time.Hour, most: 1, says: "when the CA allows it",
		},
		{
			title: "503 with Retry-After", page: down, path: pathNewOrder, fault: says(503, "serverInternal", "maintenance", "Retry-After: 3600"),
			kind: "serverInternal", status: 503, after: time.Hour, next: time.Hour, says: "maintenance (serverInternal): the CA itself has a problem; it is tried again later",
		},
		{
			title: "500 while ordering", page: down, path: pathNewOrder, fault: says(500, "serverInternal", "oops"),
			kind: "serverInternal", status: 500, says: "the CA itself has a problem; it is tried again later",
		},
		{
			title: "502 of a proxy", page: down, path: pathNewOrder, fault: sends(502, "text/html", "<html>"),
			kind: "Bad Gateway", status: 502, says: "the CA itself has a problem; it is tried again later",
		},
		{
			title: "500 while finalising", page: down, path: pathFinalize, fault: says(500, "serverInternal", "oops"),
			kind: "serverInternal", status: 500, ordered: true, kept: true, says: "the CA itself has a problem; it is tried again later",
		},
		{
			title: "hang while ordering", page: down, path: pathNewOrder, fault: hangs, begin: hurried, most: 1,
			says: "within 3s: " + elsewhere,
		},
		{
			title: "hang while finalising", page: down, path: pathFinalize, fault: hangs, begin: hurried, most: 1,
			ordered: true, kept: true, says: "within 3s: " + elsewhere,
		},
		{
			title: "malformed JSON", page: down, path: pathNewOrder, fault: sends(201, "application/json", `{"status": "pend`),
			says: "the answer is not JSON: unexpected end of JSON input: " + elsewhere,
		},
		{
			title: "malformed JSON of an order", page: down, path: pathFinalize, fault: sends(200, "application/json", `{"status": "val`),
			ordered: true, kept: true, says: "the answer is not JSON: unexpected end of JSON input: " + elsewhere,
		},
		{
			title: "404 of a gateway", page: "something on the way to the CA", path: pathOrder, fault: sends(404, "text/html", "<html>"),
			kind: "Not Found", status: 404, ordered: true, kept: true,
			says: "Not Found (HTTP status 404): " + elsewhere + ", and whether it is the CA that answers at the issuer's directory",
		},
		{
			title: "badNonce storm", page: down, path: pathNewOrder, fault: says(400, "badNonce", "unknown nonce"), most: 10,
			kind: "badNonce", status: 400, says: "refused ten nonces in a row: something on the way may answer from a cache",
		},
		{
			title: "wrong key", page: wrong, path: pathCert,
			begin: func(t *testing.T, s *scene) {
				s.front.set(pathCert, signs(t, func(*x509.Certificate) {}, newSigner(t).Public()))
			},
			ordered: true, signed: true, says: "another key than the one requested",
		},
		{
			title: "expired chain", page: wrong, path: pathCert,
			begin: func(t *testing.T, s *scene) {
				s.front.set(pathCert, signs(t, func(leaf *x509.Certificate) {
					leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day)
				}, nil))
			},
			ordered: true, signed: true, says: "has expired",
		},
		{
			title: "other names", page: wrong, path: pathCert,
			begin: func(t *testing.T, s *scene) {
				s.front.set(pathCert, signs(t, func(leaf *x509.Certificate) { leaf.DNSNames = []string{"b.example"} }, nil))
			},
			ordered: true, signed: true, says: "nothing of it is served, and another is ordered later; if it stays so, tell the CA, or use another issuer",
		},
		{
			title: "pending for ever", page: endless, path: pathAuthz, fault: stays("pending", "valid", ""),
			begin: func(t *testing.T, s *scene) {
				impatient(t, s)
				leavesAnswers(t, s)
			},
			ordered: true, kept: true, says: "waiting for the validation of a.example at pebble: it is not there after",
		},
		{
			title: "pending until tomorrow", page: endless, path: pathAuthz, fault: stays("pending", "valid", "7200"), begin: leavesAnswers,
			after: 2 * time.Hour, next: 2 * time.Hour, ordered: true, kept: true, says: "it is looked for again later",
		},
		{
			title: "processing for ever", page: endless, path: pathOrder, fault: stays("processing", "valid", ""), begin: impatient, proven: true,
			ordered: true, kept: true, signed: true, says: "waiting for the order, which is processing, at pebble: it is not there after",
		},
		{
			title: "account deactivated", page: "the account was deactivated",
			begin: func(t *testing.T, s *scene) {
				i, err := s.m.issuer(t.Context(), "pebble")
				if err == nil {
					err = i.(*acme.CA).Deactivate(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			over: takeAnotherAccount,
			kind: "unauthorized", status: 403, refused: true,
			says: "if the account was deactivated or its binding was withdrawn, the issuer needs another account: an issuer of a new name makes one",
		},
		{
			title: "changed terms", page: "the terms have changed", path: pathNewOrder, fault: says(403, "userActionRequired", "the terms have changed"),
			kind: "userActionRequired", status: 403, refused: true, says: "its terms have changed, and have to be read and agreed to there",
		},
		{
			title: "failed validation", page: "a validation fails",
			begin: func(_ *testing.T, s *scene) { s.solver.set(answersNothing) },
			over:  func(_ *testing.T, s *scene) { s.solver.set(s.ca.DNS.Solve) },
			kind:  "unauthorized", status: 403, ordered: true, says: "(unauthorized): what the CA finds is not the answer: the record has to be seen by the whole world, or every address of the name has to lead to a replica",
		},
		{
			title: "no solver", page: "`no solver answers dns-01 for …`",
			begin: func(t *testing.T, s *scene) {
				s.fleet.configure(t, s.m, strings.Replace(acmeConfig(s.ca, limited), "  .: [test]\n", "  b.example: [test]\n", 1))
			},
			over:    func(t *testing.T, s *scene) { s.fleet.configure(t, s.m, acmeConfig(s.ca, limited)) },
			ordered: true, kept: true, says: "no solver answers dns-01 for a.example: add one to `solvers` of the shared configuration, and name it in `zones`",
		},
		{
			title: "CAA", page: "`CAA records forbid … to sign`",
			begin:   func(_ *testing.T, s *scene) { s.ca.DNS.CAA("a.example", "issue", "other.example") },
			over:    func(_ *testing.T, s *scene) { s.ca.DNS.CAA("a.example", "issue", "pebble.letsencrypt.org") },
			refused: true, says: "CAA records forbid pebble to sign",
		},
	}
}

// TestFaults has a real CA, with a fault, asked for a renewal. Whatever it is, what
// is served stays as it is; the failure is noted with what the CA said, when the
// next attempt is and what to do; an order is kept if it can still become a
// certificate, and what was drawn for one that was not made is given back. When the
// fault is over the certificate is renewed, and by the same order where it was kept.
func TestFaults(t *testing.T) {
	for _, test := range faultCases() {
		t.Run(test.title, func(t *testing.T) {
			s := newScene(t, test.proven)
			served, had := s.served(t), left(t, s.m)
			s.front.set(test.path, test.fault)
			if test.begin != nil {
				test.begin(t, s)
			}
			_, err := s.m.Renew(t.Context(), s.c.ID, event.ReasonRenewal)
			test.judge(t, s, err)
			if s.served(t) != served {
				t.Error("something else is served")
			}
			spent := 0
			if test.ordered {
				spent = 1
			}
			if n := had - left(t, s.m); n != spent {
				t.Errorf("%d orders are drawn, want %d", n, spent)
			}

			order := at(t, s.m, s.c.ID).Order
			s.front.set("", nil)
			if test.over != nil {
				test.over(t, s)
			}
			got, err := s.fleet.manager(t, "").Renew(t.Context(), s.c.ID, event.ReasonRenewal)
			if err != nil {
				t.Fatal(err)
			}
			if s.served(t) == served || got.Failure != nil || got.Order != nil {
				t.Errorf("renewed: %+v", got.State)
			}
			if test.kept {
				if r, _ := got.newest(); r.Order != order.URL {
					t.Errorf("by order %s, not by %s that was begun", r.Order, order.URL)
				}
				if n := had - left(t, s.m); n != 1 || s.ca.Finalized("a.example") != 2 {
					t.Errorf("%d orders are drawn, and %d finalised for two generations", n, s.ca.Finalized("a.example"))
				}
			}
		})
	}
}

// judge looks at what a failed attempt has left.
func (f *faultCase) judge(t *testing.T, s *scene, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), f.says) {
		t.Fatalf("it says %v, want %q", err, f.says)
	}
	t.Log(err)
	if errors.Is(err, issuer.ErrRefused) != f.refused {
		t.Errorf("refused: %v", !f.refused)
	}
	now := at(t, s.m, s.c.ID)
	n := now.Failure
	if n == nil || n.Attempts != 1 || n.Issuer != "pebble" || !strings.Contains(n.Message, f.says) {
		t.Fatalf("noted: %+v", n)
	}
	switch p := n.Problem; {
	case (p != nil) != (f.kind != ""):
		t.Errorf("of what the CA said: %+v", p)
	case p != nil && (p.Status != f.status || !strings.HasSuffix(p.Type, f.kind) && !strings.Contains(p.Detail, f.kind)):
		t.Errorf("of what the CA said: %+v", p)
	}
	near := func(got, want time.Duration) bool { return got <= want && got > want-time.Minute }
	if next := max(f.next, time.Minute); !near(n.Next.Sub(n.At), next) || now.RenewAt().Before(n.Next.Add(-time.Second)) {
		t.Errorf("tried again after %s, due at %s; want %s", n.Next.Sub(n.At), now.RenewAt(), next)
	}
	if f.after > 0 && !near(n.RetryAfter.Sub(n.At), f.after) || f.after == 0 && !n.RetryAfter.IsZero() {
		t.Errorf("to be left alone until %s", n.RetryAfter)
	}
	if (n.Order != "") != (f.ordered && f.path != pathCert) || (now.Order != nil) != f.kept {
		t.Errorf("order %q, kept: %+v", n.Order, now.Order)
	}
	if now.Claim != nil || now.Hold != nil || now.Generation != 1 {
		t.Errorf("%+v", now.State)
	}
	if f.most > 0 && s.front.met() > f.most {
		t.Errorf("%d requests met it, want %d at most", s.front.met(), f.most)
	}
	if n := s.ca.Finalized("a.example"); (n != 1) != f.signed {
		t.Errorf("%d orders are finalised", n)
	}
}
