// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// A testMember is a host that has joined, and signs what it reports.
type testMember struct {
	t testing.TB
	f *fleet
	event.Member
	key *seal.SigningKey
	at  bus.Position
}

// join makes a host a member of the default group, as a manager would.
func (f *fleet) join(t testing.TB, m *Manager, name string) *testMember {
	t.Helper()
	own, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	h := &testMember{t: t, f: f, key: own.Signing, Member: event.Member{Joined: time.Now(), JoinRequest: event.JoinRequest{
		ID: event.NewID(), Group: DefaultGroup, Name: name,
		SealKey: own.Sealing[0].Public().Bytes(), SignKey: own.Signing.Public().Bytes(),
	}}}
	h.write(m)
	return h
}

// write makes the member's entry what it is.
func (h *testMember) write(m *Manager) {
	h.t.Helper()
	at, err := m.append(h.t.Context(), h.at, &h.Member)
	if err != nil {
		h.t.Fatal(err)
	}
	h.at = at
}

func (h *testMember) revoke(m *Manager) {
	h.t.Helper()
	h.Revoked = time.Now()
	h.write(m)
}

// put puts a receipt on the board, signed by whomever.
func (h *testMember) put(r *event.Receipt, by *seal.SigningKey, at time.Time) {
	h.t.Helper()
	r.Group, r.Member, r.Pages = h.Group, h.ID, max(1, r.Pages)
	data, err := event.Sign(by, DefaultTenant, at, r)
	if err != nil {
		h.t.Fatal(err)
	}
	board := h.f.log.(bus.Boarder).Board()
	if err := board.Put(h.t.Context(), event.ReceiptKey(h.Group, h.ID, r.Page), data); err != nil {
		h.t.Fatal(err)
	}
}

// report reports what is held.
func (h *testMember) report(held ...event.Received) {
	h.t.Helper()
	h.put(&event.Receipt{Program: "v1", Following: true, Certificates: held}, h.key, time.Now())
}

// holds is what a replica says of a certificate that it serves.
func holds(c *Managed) event.Received {
	return event.Received{ID: c.ID, Version: c.Version, Removed: c.Removed, At: time.Now(), Served: time.Now()}
}

// status asks for one certificate.
func statusOf(t testing.TB, m *Manager, id string) CertificateStatus {
	t.Helper()
	f, err := m.Fleet(t.Context(), Query{ID: id})
	if err != nil || len(f.Certificates) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	return f.Certificates[0]
}

// states are the words for the replicas of a certificate, by host.
func states(c CertificateStatus) map[string]ReplicaState {
	list := make(map[string]ReplicaState)
	for _, r := range c.Replicas {
		list[r.Name] = r.State
	}
	return list
}

func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c, other := make1(t, m, "a.example"), make1(t, m, "b.example")
		old := holds(c)
		c, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
		if err != nil {
			t.Fatal(err)
		}
		silent := f.join(t, m, "silent")
		silent.report(holds(c))
		time.Sleep(SilentAfter + time.Second)
		f.join(t, m, "serving").report(holds(c), holds(other))
		received := holds(c)
		received.Served = time.Time{}
		f.join(t, m, "received").report(received)
		f.join(t, m, "behind").report(old)
		refused := old
		refused.Error = "the pair does not match\x1b[2J"
		f.join(t, m, "refused").report(refused)
		f.join(t, m, "empty").report()
		f.join(t, m, "never")
		gone := f.join(t, m, "gone")
		gone.report(holds(c))
		gone.revoke(m)
		time.Sleep(time.Minute)

		s := statusOf(t, m, c.ID)
		want := map[string]ReplicaState{
			"serving": StateServing, "received": StateReceived, "behind": StateBehind, "refused": StateRefused,
			"empty": StateBehind, "silent": StateSilent, "never": StateNever,
		}
		if got := states(s); len(got) != len(want) || s.Version != c.Version || s.Members != 7 || s.Delivered != 3 || s.Served != 2 {
			t.Errorf("%+v", s)
		}
		for name, state := range want {
			if got := states(s)[name]; got != state {
				t.Errorf("%s is %q, want %q", name, got, state)
			}
		}
		for _, r := range s.Replicas {
			if r.Name == "refused" && (r.Version != old.Version || r.Error != "the pair does not match [2J") {
				t.Errorf("%+v", r)
			}
		}

		all, err := m.Fleet(t.Context(), Query{})
		if err != nil || len(all.Certificates) != 2 || len(all.Members) != 7 || len(all.Groups) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		g := all.Groups[0]
		if g.Name != DefaultGroup || g.Members != 7 || g.Certificates != 2 || g.Silent != 1 || g.Unreported != 1 || g.Key != f.group.Public().ID().String() {
			t.Errorf("%+v", g)
		}
		if !g.Budget.Equal(other.Certificate.NotAfter) && !g.Budget.Equal(c.Certificate.NotAfter) {
			t.Errorf("an outage budget until %v", g.Budget)
		}
		if none, err := m.Fleet(t.Context(), Query{Group: "other"}); err != nil || len(none.Certificates)+len(none.Members)+len(none.Groups) != 0 {
			t.Errorf("%+v, %v", none, err)
		}
	})
}

// TestTheBudgetIsOfWhatIsServed, which may be older than what was issued.
func TestTheBudgetIsOfWhatIsServed(t *testing.T) {
	f, m := newReportingFleet(t)
	make1(t, m, "a.example")
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	h := f.join(t, m, "behind")
	h.put(&event.Receipt{Budget: soon}, h.key, time.Now())
	got, err := m.Fleet(t.Context(), Query{})
	if err != nil || !got.Groups[0].Budget.Equal(soon) {
		t.Errorf("%v, %v", got.Groups[0].Budget, err)
	}
}

func TestReceiptsOfSeveralPages(t *testing.T) {
	f, m := newReportingFleet(t)
	a, b := make1(t, m, "a.example"), make1(t, m, "b.example")
	h := f.join(t, m, "h")
	h.put(&event.Receipt{Page: 1, Pages: 2, Certificates: []event.Received{holds(b)}}, h.key, time.Now())
	if s := statusOf(t, m, b.ID); s.Served != 0 || s.Replicas[0].State != StateNever {
		t.Errorf("before the first page came: %+v", s)
	}
	h.put(&event.Receipt{Pages: 2, Certificates: []event.Received{holds(a)}}, h.key, time.Now())
	for _, c := range []*Managed{a, b} {
		if s := statusOf(t, m, c.ID); s.Served != 1 {
			t.Errorf("%+v", s)
		}
	}
	// One page less: what stands on the second one is of no more worth.
	h.report(holds(a))
	if s := statusOf(t, m, b.ID); s.Served != 0 {
		t.Errorf("%+v", s)
	}
}

// TestReceiptsAreTheMembersOwn: a receipt counts if the member signed it.
func TestReceiptsAreTheMembersOwn(t *testing.T) {
	f, m := newReportingFleet(t)
	c := make1(t, m, "a.example")
	h, other := f.join(t, m, "h"), f.join(t, m, "other")
	for what, key := range map[string]*seal.SigningKey{"another member": other.key, "a manager": f.identity.Signing} {
		h.put(&event.Receipt{Certificates: []event.Received{holds(c)}}, key, time.Now())
		s := statusOf(t, m, c.ID)
		if s.Served != 0 || s.Replicas[0].State != StateNever {
			t.Errorf("signed by %s: %+v", what, s)
		}
	}
	all, err := m.Fleet(t.Context(), Query{})
	if err != nil || !strings.Contains(all.Members[0].Error, "not trusted") {
		t.Errorf("%+v, %v", all.Members[0], err)
	}
	h.report(holds(c))
	if s := statusOf(t, m, c.ID); s.Served != 1 {
		t.Errorf("%+v", s)
	}
}

// TestWhatTheBusDoesNotKnow is shown beside who serves it.
func TestWhatTheBusDoesNotKnow(t *testing.T) {
	f, m := newReportingFleet(t)
	c := make1(t, m, "a.example")
	stray := event.Received{ID: event.NewID(), Version: event.Version{Epoch: 1, Generation: 1}, Served: time.Now()}
	f.join(t, m, "h").report(stray, holds(c)) // perhaps not sorted
	got, err := m.Fleet(t.Context(), Query{})
	if err != nil || !slices.Equal(got.Members[0].Unknown, []string{stray.ID}) || got.Certificates[0].Served != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestFleetAsJSON holds the words that others rely on.
func TestFleetAsJSON(t *testing.T) {
	f, m := newReportingFleet(t)
	c := make1(t, m, "a.example")
	r := holds(c)
	r.Lag = 1500 * time.Millisecond
	f.join(t, m, "h").report(r)
	got, err := m.Fleet(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"state":"serving","epoch":1,"generation":1,`, `"lag_seconds":1.5`, `"outage_budget":"`, `"members":1,"delivered":1,"served":1,`,
		`"granted":false`, `"skew_seconds":0`, `"program":"v1"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("without %s: %s", want, text)
		}
	}
}

// TestLive is what Fleet says, without asking.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c := make1(t, m, "a.example")
		h := f.join(t, m, "early")
		h.report(holds(c))
		if m.Live(Query{}) != nil {
			t.Error("something is known before Run")
		}
		stop := run(t, m)
		synctest.Wait()
		if l := m.Live(Query{}); l == nil || l.Certificates[0].Served != 1 {
			t.Fatalf("%+v", l)
		}
		f.join(t, m, "late").report(holds(c))
		gone := f.join(t, m, "gone")
		gone.report(holds(c))
		gone.revoke(m)
		synctest.Wait()
		if l := m.Live(Query{Counts: true}); l.Certificates[0].Served != 2 || l.Certificates[0].Members != 2 || l.Certificates[0].Replicas != nil {
			t.Errorf("%+v", l)
		}
		time.Sleep(SilentAfter / 2)
		h.report(holds(c))
		time.Sleep(SilentAfter/2 + time.Second)
		synctest.Wait()
		if got := states(m.Live(Query{}).Certificates[0]); got["early"] != StateServing || got["late"] != StateSilent {
			t.Errorf("%v", got)
		}
		stop()
		if m.Live(Query{}) != nil {
			t.Error("something is known after Run")
		}
	})
}
