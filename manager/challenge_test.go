// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
)

// challengeFor is a challenge of an order's for a name, to the default group.
func challengeFor(kind, name, order string) solver.Challenge {
	token := strings.Repeat("t", 30) + order
	return solver.Challenge{Type: kind, Name: name, Token: token, KeyAuthorization: token + ".thumbprint", Group: DefaultGroup}
}

// A solving is a solve in the background.
type solving struct {
	done func(context.Context) error
	err  error
	ends chan struct{}
}

func solve(ctx context.Context, m *Manager, c solver.Challenge) *solving {
	s := &solving{ends: make(chan struct{})}
	go func() {
		defer close(s.ends)
		s.done, s.err = m.solve(ctx, c)
	}()
	return s
}

// ended reports whether it has, once nothing else happens without time.
func (s *solving) ended() bool {
	time.Sleep(gather)
	synctest.Wait()
	select {
	case <-s.ends:
		return true
	default:
		return false
	}
}

// challenges is what the replicas of the default group are to answer, and where it stands.
func (f *fleet) challenges(t testing.TB) ([]event.Challenge, bus.Position) {
	t.Helper()
	key := event.ChallengesKey(DefaultGroup)
	entry, err := f.log.Get(context.Background(), key)
	if isNotFound(err) {
		return nil, bus.Position{}
	}
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Open([]*seal.VerifyKey{f.identity.Signing.Public()}, DefaultTenant, key, entry.Data)
	if err != nil {
		t.Fatal(err)
	}
	return e.Body.(*event.Challenges).List, entry.Position
}

// answers reports that the member answers what stands at a place.
func (h *testMember) answers(at bus.Position) {
	h.t.Helper()
	h.put(&event.Receipt{Following: true, Challenges: at.String()}, h.key, time.Now())
}

// obey answers whatever comes until stop is called.
func (h *testMember) obey(t testing.TB) (stop func()) {
	t.Helper()
	h.report()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for u, err := range h.f.log.Follow(ctx, event.ChallengesKey(DefaultGroup), bus.Position{}) {
			if err == nil && !u.CaughtUp {
				h.answers(u.Position)
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func TestChallengesWaitForLiveReplicas(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m := newReportingFleet(t)
				f.join(t, m, "silent").report()
				time.Sleep(SilentAfter + time.Second)
				one, two, gone := f.join(t, m, "one"), f.join(t, m, "two"), f.join(t, m, "gone")
				f.join(t, m, "never")
				for _, h := range []*testMember{one, two, gone} {
					h.report()
				}
				gone.revoke(m)
				if running {
					defer run(t, m)()
					synctest.Wait()
				}
				s := solve(t.Context(), m, challengeFor(solver.HTTP01, "a.example", "1"))
				if s.ended() {
					t.Fatal("nobody answers yet: ", s.err)
				}
				list, at := f.challenges(t)
				if len(list) != 1 || list[0].Name != "a.example" || list[0].Type != event.ChallengeHTTP01 {
					t.Fatalf("%+v", list)
				}
				if left := time.Until(list[0].Expires); left < issueTimeout || left > challengeLife {
					t.Errorf("it is answered for %v", left)
				}
				one.answers(at)
				two.answers(bus.Position{Log: "another", Seq: at.Seq + 9})
				if s.ended() {
					t.Fatal("one does not answer yet: ", s.err)
				}
				two.answers(bus.Position{Log: at.Log, Seq: at.Seq + 1})
				if !s.ended() || s.err != nil {
					t.Fatal("all answer: ", s.err)
				}
				if err := s.done(t.Context()); err != nil {
					t.Fatal(err)
				}
				if list, _ := f.challenges(t); len(list) != 0 {
					t.Errorf("left behind: %+v", list)
				}
			})
		})
	}
}

func TestUnansweredChallengesNameWhoDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		defer f.join(t, m, "good").obey(t)()
		f.join(t, m, "stopped").report()
		old := f.join(t, m, "old")
		cut := f.join(t, m, "cut")
		time.Sleep(time.Second)
		began := time.Now()
		s := solve(t.Context(), m, challengeFor(solver.TLSALPN01, "a.example", "1"))
		if s.ended() {
			t.Fatal(s.err)
		}
		old.report()
		cut.put(&event.Receipt{Error: "no route to host"}, cut.key, time.Now())
		<-s.ends
		var e *UnansweredError
		if !errors.As(s.err, &e) || e.Answered != 1 || e.Of != 4 || e.Err != nil || e.Name != "a.example" || len(e.Missing) != 3 {
			t.Fatal(s.err)
		}
		if took := time.Since(began); took < answerTimeout || took > answerTimeout+time.Second {
			t.Errorf("after %v", took)
		}
		for _, want := range []string{
			"answered by 1 of 4 live replicas", "stopped (", "was heard of at", "old (", "join it anew", "cut (", "no route to host",
		} {
			if !strings.Contains(s.err.Error(), want) {
				t.Errorf("without %q: %v", want, s.err)
			}
		}
		if list, _ := f.challenges(t); len(list) != 0 {
			t.Errorf("left behind: %+v", list)
		}

		// Whoever waits no longer takes it back, too.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s = solve(ctx, m, challengeFor(solver.TLSALPN01, "a.example", "2"))
		<-s.ends
		if !errors.As(s.err, &e) || !errors.Is(s.err, context.DeadlineExceeded) {
			t.Error(s.err)
		}
		if list, _ := f.challenges(t); len(list) != 0 {
			t.Errorf("left behind: %+v", list)
		}
	})
}

func TestChallengesThatNobodyWouldAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		f.join(t, m, "never")
		began := time.Now()
		_, err := m.solve(t.Context(), challengeFor(solver.HTTP01, "a.example", "1"))
		var e *UnansweredError
		if !errors.As(err, &e) || e.Of != 0 || !strings.Contains(err.Error(), "no replica of group \"default\" is live") {
			t.Error(err)
		}
		if took := time.Since(began); took < firstReport || took > firstReport+time.Second {
			t.Errorf("after %v: a host that has just joined is waited for, and no longer", took)
		}
		time.Sleep(time.Minute)
		began = time.Now()
		if _, err := m.solve(t.Context(), challengeFor(solver.HTTP01, "a.example", "1")); !errors.As(err, &e) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if list, _ := f.challenges(t); len(list) != 0 {
			t.Errorf("left behind: %+v", list)
		}
		f.log = struct{ bus.Log }{f.log}
		if _, err := f.manager(t, "").solve(t.Context(), challengeFor(solver.HTTP01, "a.example", "1")); !errors.Is(err, ErrNoBoard) {
			t.Error(err)
		}
		bad := challengeFor(solver.HTTP01, "a.example", "/../../x")
		if _, err := m.solve(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "token") {
			t.Error(err)
		}
	})
}

// What comes at about the same time is written at once, by however many managers.
func TestChallengesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		defer f.join(t, m, "one").obey(t)()
		counted := &appends{Log: f.log, n: make(map[string]int)}
		var managers []*Manager
		for range 2 {
			own, err := New(Config{Log: counted, Board: f.log.(bus.Boarder).Board(), Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			managers = append(managers, own)
		}
		const names = 100
		var all []*solving
		for i, m := range managers {
			for n := range names {
				kind := []string{solver.HTTP01, solver.TLSALPN01}[n%2]
				all = append(all, solve(t.Context(), m, challengeFor(kind, fmt.Sprintf("%d-%d.example", i, n), fmt.Sprint(i, "-", n))))
			}
		}
		for _, s := range all {
			if <-s.ends; s.err != nil {
				t.Fatal(s.err)
			}
		}
		key := event.ChallengesKey(DefaultGroup)
		if list, _ := f.challenges(t); len(list) != 2*names || counted.count(key) > 6 {
			t.Errorf("%d challenges after %d appends", len(list), counted.count(key))
		}
		var wg sync.WaitGroup
		for _, s := range all {
			wg.Go(func() {
				if err := s.done(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if list, _ := f.challenges(t); len(list) != 0 || counted.count(key) > 12 {
			t.Errorf("%d challenges are left after %d appends", len(list), counted.count(key))
		}
	})
}

// A name shows one answer by TLS, and an order that is resumed asks for the same.
func TestChallengesOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		defer f.join(t, m, "one").obey(t)()
		other := f.manager(t, "")
		first := solve(t.Context(), m, challengeFor(solver.TLSALPN01, "a.example", "1"))
		<-first.ends
		again := solve(t.Context(), m, challengeFor(solver.TLSALPN01, "a.example", "1"))
		<-again.ends
		byHTTP := solve(t.Context(), other, challengeFor(solver.HTTP01, "a.example", "2"))
		<-byHTTP.ends
		second := solve(t.Context(), other, challengeFor(solver.TLSALPN01, "a.example", "2"))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		third := solve(ctx, other, challengeFor(solver.TLSALPN01, "a.example", "3"))
		<-third.ends
		if err := third.err; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another order's tls-alpn-01 challenge for a.example") {
			t.Error(err)
		}
		if second.ended() || first.err != nil || again.err != nil || byHTTP.err != nil {
			t.Fatal(first.err, again.err, byHTTP.err, second.err)
		}
		if err := first.done(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * holdRetry)
		if second.ended() {
			t.Fatal("the first is needed still: ", second.err)
		}
		for range 2 { // the second call does nothing
			if err := again.done(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		<-second.ends
		if list, _ := f.challenges(t); second.err != nil || len(list) != 2 {
			t.Errorf("%v, %+v", second.err, list)
		}
	})
}

// What a manager left that died ends by itself, and what nobody signed never was.
func TestChallengesThatWereLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		one := f.join(t, m, "one")
		defer one.obey(t)()
		left := solve(t.Context(), m, challengeFor(solver.TLSALPN01, "a.example", "1"))
		<-left.ends
		time.Sleep(challengeLife)
		one.report()
		next := solve(t.Context(), f.manager(t, ""), challengeFor(solver.TLSALPN01, "b.example", "2"))
		<-next.ends
		list, at := f.challenges(t)
		if left.err != nil || next.err != nil || len(list) != 1 || list[0].Name != "b.example" {
			t.Fatal(left.err, next.err, list)
		}
		if _, err := f.log.Append(t.Context(), event.ChallengesKey(DefaultGroup), at, []byte("garbage")); err != nil {
			t.Fatal(err)
		}
		last := solve(t.Context(), m, challengeFor(solver.TLSALPN01, "c.example", "3"))
		<-last.ends
		if list, _ := f.challenges(t); last.err != nil || len(list) != 1 || list[0].Name != "c.example" {
			t.Error(last.err, list)
		}
	})
}

// More than replicas answer at once has to wait, and a list never gets too long.
func TestChallengesHaveBounds(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4)
	for name, add := range map[string]string{"many": "", "long": long[:240]} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m := newReportingFleet(t)
				defer f.join(t, m, "one").obey(t)()
				var all []*solving
				const orders = event.MaxChallenges + 50
				for i := range orders {
					c := challengeFor(solver.HTTP01, add+fmt.Sprint(i), fmt.Sprint(i))
					c.KeyAuthorization += strings.Repeat("k", 100)
					all = append(all, solve(t.Context(), m, c))
				}
				for done := 0; done < orders; time.Sleep(holdRetry) {
					synctest.Wait()
					if list, _ := f.challenges(t); len(list) > event.MaxChallenges {
						t.Fatalf("%d challenges", len(list))
					}
					var wg sync.WaitGroup
					all = slices.DeleteFunc(all, func(s *solving) bool {
						select {
						case <-s.ends:
						default:
							return false
						}
						if s.err != nil {
							t.Fatal(s.err)
						}
						done++
						wg.Go(func() {
							if err := s.done(t.Context()); err != nil {
								t.Error(err)
							}
						})
						return true
					})
					wg.Wait()
				}
				if list, _ := f.challenges(t); len(list) != 0 {
					t.Errorf("%d are left", len(list))
				}
			})
		})
	}
}
