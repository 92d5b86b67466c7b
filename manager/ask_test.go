// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

// An informer is the real issuer, which says when to renew besides.
type informer struct {
	issuer.Issuer
	says func(name string) (issuer.RenewalInfo, error)

	mu    sync.Mutex
	asked map[string]int // guarded by mu; by name
}

func (i *informer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (issuer.RenewalInfo, error) {
	i.mu.Lock()
	i.asked[leaf.DNSNames[0]]++
	i.mu.Unlock()
	select { // an answer takes its time
	case <-ctx.Done():
		return issuer.RenewalInfo{}, ctx.Err()
	case <-time.After(2 * time.Second):
	}
	return i.says(leaf.DNSNames[0])
}

// count returns how often was asked about a name.
func (i *informer) count(name string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[name]
}

// informed puts an issuer that says when to renew in the place of each manager's own.
func informed(t *testing.T, says func(name string) (issuer.RenewalInfo, error), managers ...*Manager) *informer {
	t.Helper()
	i := &informer{says: says, asked: make(map[string]int)}
	for _, m := range managers {
		real, err := m.issuer(t.Context(), "internal")
		if err != nil {
			t.Fatal(err)
		}
		i.Issuer = real
		set, err := m.settings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		informs := *set
		informs.informs = map[string]bool{"internal": true}
		m.set.Store(&informs)
		m.mu.Lock()
		c := m.issuers["internal"]
		c.issuer = i
		m.issuers["internal"] = c
		m.mu.Unlock()
	}
	return i
}

// inTime says that a certificate made now is to be renewed after about fifty days.
func inTime(now time.Time) func(string) (issuer.RenewalInfo, error) {
	return func(string) (issuer.RenewalInfo, error) {
		return issuer.RenewalInfo{Start: now.Add(50 * day), End: now.Add(52 * day), Poll: 6 * time.Hour}, nil
	}
}

// TestManagersShareAnAnswer: of several, one asks, writes the answer down, and the
// others wait for the next time, when it may be another.
func TestManagersShareAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		var made []*Managed
		for n := range 10 {
			made = append(made, make1(t, m, fmt.Sprintf("h%d.example", n)))
		}
		start := time.Now()
		managers := []*Manager{f.manager(t, ""), f.manager(t, ""), f.manager(t, ""), f.manager(t, "")}
		i := informed(t, inTime(start), managers...)
		for _, m := range managers {
			defer run(t, m)()
		}
		time.Sleep(firstAsk + time.Minute)
		for _, c := range made {
			if c := at(t, m, c.ID); c.Renewal == nil || i.count(c.Spec.Names[0]) == 0 {
				t.Errorf("%s was not asked about within %v", c.Spec.Names, firstAsk)
			}
		}
		time.Sleep(10 * day)
		asked, once := 0, int(10*day/(6*time.Hour))+1 // for each: alone, one would ask so often
		for _, c := range made {
			n := i.count(c.Spec.Names[0])
			asked += n
			if n < once*9/10-1 {
				t.Errorf("%s was asked about %d times in ten days, want about %d", c.Spec.Names, n, once)
			}
			got := at(t, m, c.ID)
			if _, cause := got.regular(); cause != CauseWindow || !got.Renewal.Start.Equal(start.Add(50*day)) || time.Since(got.Renewal.Asked) > 7*time.Hour {
				t.Errorf("%+v by %s", got.Renewal, cause)
			}
		}
		if most := len(made) * once * 11 / 10; asked > most {
			t.Errorf("%d managers asked %d times, want at most %d", len(managers), asked, most)
		}
	})
}

// TestAPassAsks when to renew, and renews at once what is recalled; the next pass asks
// about nothing again before its time.
func TestAPassAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		recalled, other, silent, paused := make1(t, m, "recalled.example"), make1(t, m, "other.example"), make1(t, m, "silent.example"), make1(t, m, "paused.example")
		if err := m.Pause(t.Context(), paused.ID, ""); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		timers := []*Manager{f.manager(t, ""), f.manager(t, "")}
		i := informed(t, func(name string) (issuer.RenewalInfo, error) {
			switch name {
			case "recalled.example":
				return issuer.RenewalInfo{Start: start.Add(-time.Hour), End: start.Add(-time.Minute), Explanation: "https://ca.example/why", Poll: time.Hour}, nil
			case "silent.example":
				return issuer.RenewalInfo{}, errors.New("the CA is not reached")
			}
			return inTime(start)(name)
		}, timers...)
		time.Sleep(2 * time.Hour) // a recall is heard when a certificate is an hour old
		pass := func(m *Manager) map[string]DueResult {
			list, err := m.RenewDue(t.Context(), DueOptions{})
			return results(t, list, err)
		}
		got := pass(timers[0])
		if len(got) != 1 || got[recalled.ID].Err != nil || got[recalled.ID].Generation != 2 {
			t.Fatalf("%+v", got)
		}
		if c := at(t, m, recalled.ID); c.lastReason() != event.ReasonCA {
			t.Errorf("renewed because of %s", c.lastReason())
		}
		if c := at(t, m, other.ID); c.Renewal == nil || !c.Renewal.Start.Equal(start.Add(50*day)) {
			t.Errorf("%+v", c.Renewal)
		}
		if c := at(t, m, silent.ID); c.Renewal == nil || !c.Renewal.Start.IsZero() || c.Renewal.Next.Sub(c.Renewal.Asked) != afterSilence {
			t.Errorf("%+v", c.Renewal)
		}
		if n := i.count("paused.example"); n != 0 {
			t.Errorf("asked %d times about what is paused", n)
		}
		for range 5 {
			time.Sleep(time.Hour - time.Minute)
			for _, timer := range timers {
				if got := pass(timer); len(got) != 0 {
					t.Errorf("%+v", got)
				}
			}
		}
		for _, name := range []string{"other.example", "silent.example"} {
			if n := i.count(name); n != 1 {
				t.Errorf("asked %d times about %s within six hours", n, name)
			}
		}
		time.Sleep(2 * time.Hour)
		if pass(timers[1]); i.count("other.example") != 2 || i.count("silent.example") != 2 {
			t.Errorf("asked %d and %d times after six hours", i.count("other.example"), i.count("silent.example"))
		}
	})
}

// TestASilentCAHoldsUpNoRenewal: what is due is renewed while the CA lets all who ask
// when to renew wait, and others are asked about in turn.
func TestASilentCAHoldsUpNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		var made []*Managed
		for n := range 3 * asking {
			made = append(made, make1(t, m, fmt.Sprintf("h%d.example", n)))
		}
		runner := f.manager(t, "")
		i := informed(t, func(string) (issuer.RenewalInfo, error) {
			time.Sleep(askTimeout)
			return issuer.RenewalInfo{}, context.DeadlineExceeded
		}, runner)
		defer run(t, runner)()
		time.Sleep(2 * time.Hour)
		for _, c := range made {
			if c := at(t, m, c.ID); c.Renewal == nil || i.count(c.Spec.Names[0]) != 1 {
				t.Errorf("asked %d times about %s: %+v", i.count(c.Spec.Names[0]), c.Spec.Names, c.Renewal)
			}
		}
		due := marked(t, m, 1, "due")
		time.Sleep(10 * time.Second)
		if c := at(t, m, due[0]); c.Generation != 2 {
			t.Errorf("generation %d", c.Generation)
		}
		time.Sleep(61 * day)
		for _, c := range made {
			if c := at(t, m, c.ID); c.Generation != 2 || c.lastReason() != event.ReasonRenewal {
				t.Errorf("generation %d because of %s: the rule stands in for a CA that is silent", c.Generation, c.lastReason())
			}
		}
	})
}
