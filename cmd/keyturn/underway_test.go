// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
)

// TestUnderWay prints everything that can keep a generation from being there, the
// CA's words for each name among it; nothing of it can steer a terminal.
func TestUnderWay(t *testing.T) {
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	c := &manager.Managed{State: event.State{
		ID: "AAAAAAAAAAA", Version: event.Version{Epoch: 1, Generation: 3}, Spec: event.Spec{Issuer: "le"},
		Order: &event.Order{Generation: 4, Issuer: "le", URL: "https://ca.example/order/1\u009b", Status: "pending", At: at, Expires: at.Add(time.Hour)},
		Failure: &event.Failure{
			Attempts: 2, At: at, Next: at.Add(time.Minute), Message: "the order came to\u202enothing", Issuer: "le", Order: "https://ca.example/order/0",
			RetryAfter: at.Add(time.Hour),
			Problem: &event.Problem{
				Type: "urn:ietf:params:acme:error:compound", Detail: "Errors during validation\x1b[2J", Instance: "https://ca.example/doc",
				Parts: []event.Problem{
					{Type: "urn:ietf:params:acme:error:caa", Detail: "CAA forbids it", Name: "a.example"},
					{Title: "Slow down", Name: "b.example"},
				},
			},
		},
		Renewal: &event.Renewal{Generation: 3, Start: at, End: at.Add(time.Hour), Explanation: "https://ca.example/why", Asked: at, Next: at.Add(6 * time.Hour)},
		Hold:    &event.Hold{Until: at.Add(time.Hour), Reason: "50 certificates for example.com in 7d are all that the CA allows"},
		Pause:   &event.Pause{At: at, Reason: "is moved"},
	}}
	d := new(detail)
	d.underWay(c)
	want := strings.Split(`order for generation 4 at le since 2026-11-23T06:00:00Z: https://ca.example/order/1  pending
attempt 2 failed at le, 2026-11-23T06:00:00Z; the next is 2026-11-23T06:01:00Z
  the order came to nothing
  order https://ca.example/order/0
  the CA: Errors during validation [2J (urn:ietf:params:acme:error:compound), see https://ca.example/doc
  the CA: a.example: CAA forbids it (urn:ietf:params:acme:error:caa)
  the CA: b.example: Slow down
  the CA wants not to be asked before 2026-11-23T07:00:00Z
the CA suggests to renew from 2026-11-23T06:00:00Z to 2026-11-23T07:00:00Z, see https://ca.example/why
held until 2026-11-23T07:00:00Z: 50 certificates for example.com in 7d are all that the CA allows
paused since 2026-11-23T06:00:00Z: is moved`, "\n")
	if diff := cmp.Diff(want, d.now()); diff != "" {
		t.Error(diff)
	}
	if p := d.Failure.Problem; len(p.Subproblems) != 2 || p.Subproblems[0].Identifier != "a.example" || p.Subproblems[1].Title != "Slow down" {
		t.Errorf("%+v", p)
	}
	d = new(detail)
	if d.underWay(&manager.Managed{}); len(d.now()) > 0 {
		t.Errorf("of nothing: %q", d.now())
	}
}

// TestExplained: the page where a CA says why is shown with what it says.
func TestExplained(t *testing.T) {
	r := explainedRow{Why: "the CA suggests it", Window: &windowDetail{Explanation: "https://ca.example/why"}}
	if r.why() != "the CA suggests it, see https://ca.example/why" {
		t.Error(r.why())
	}
	list := []explainedRow{{Cause: "pause"}, {Cause: "rule", at: time.Unix(2, 0)}, {Cause: "mark", at: time.Unix(1, 0)}}
	if byTime(list); list[0].Cause != "mark" || list[2].Cause != "pause" {
		t.Errorf("%+v", list)
	}
}

// What others wrote neither steers a terminal nor is written backwards there.
func TestErrorsAreLines(t *testing.T) {
	err := errors.Join(errors.New("making x: the CA says \x1b]0;hello\a"), errors.New("two\u202e"))
	if got, want := lines(err), "making x: the CA says  ]0;hello \ntwo "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
