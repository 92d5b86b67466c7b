// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

// fails has a CA fail whenever an order comes to a stage.
func fails(where stage, why error) func(context.Context, stage) error {
	return func(_ context.Context, s stage) error {
		if s == where {
			return why
		}
		return nil
	}
}

// TestAnUnfinishedCertificate has the first generation fail after its order became a
// certificate: whoever goes on with it does so under the same id, by the same order.
func TestAnUnfinishedCertificate(t *testing.T) {
	request := Request{Names: []string{"b.example", "a.example"}}
	for title, goOn := range map[string]func(*testing.T, *Manager) (*Managed, error){
		"the same request": func(t *testing.T, m *Manager) (*Managed, error) { return m.Make(t.Context(), request) },
		"in another order": func(t *testing.T, m *Manager) (*Managed, error) {
			return m.Make(t.Context(), Request{Names: []string{"a.example", "b.example"}, Issuer: "internal"})
		},
		"with force": func(t *testing.T, m *Manager) (*Managed, error) {
			return m.Make(t.Context(), Request{Names: request.Names, Force: true})
		},
		"a renewal": func(t *testing.T, m *Manager) (*Managed, error) {
			list, err := m.List(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			return m.Renew(t.Context(), list[0].ID, event.ReasonRekey)
		},
		"whoever runs": func(t *testing.T, m *Manager) (*Managed, error) {
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan struct{})
			go func() {
				defer close(ran)
				m.Run(ctx)
			}()
			time.Sleep(15 * time.Minute)
			stop()
			<-ran
			list, err := m.List(t.Context())
			return list[0], err
		},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m := newFleet(t)
				ca := newOrderCA(t, m)
				use(t, m, ca)
				ca.set(fails(finalised, errors.New("CA is down")))
				var unfinished *UnfinishedError
				for range 2 {
					if c, err := m.Make(t.Context(), request); c != nil || !errors.As(err, &unfinished) || !strings.Contains(err.Error(), "keyturn cert rm "+unfinished.ID) {
						t.Fatal(c, err)
					}
				}
				c := at(t, m, unfinished.ID)
				if c.Generation != 0 || c.Claim != nil || c.Failure.Attempts != 2 || c.Order == nil || c.Order.Status != "valid" {
					t.Fatalf("left behind: %+v", c.State)
				}

				ca.set(nil)
				heir := f.manager(t, "")
				use(t, heir, ca)
				got, err := goOn(t, heir)
				if err != nil || got.ID != c.ID || got.Generation != 1 || got.History[0].Order != c.Order.URL || got.Failure != nil {
					t.Fatalf("made: %+v %v", got, err)
				}
				if begun, finalised := ca.counts(); begun != 1 || finalised != 1 {
					t.Errorf("%d orders were begun and %d finalised for one generation", begun, finalised)
				}
			})
		})
	}
}

// TestWhatIsNotGoneOnWith is about makers who want another certificate than the
// unfinished one, and about giving that up.
func TestWhatIsNotGoneOnWith(t *testing.T) {
	_, m := newFleet(t)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	ca.set(fails(finalised, errors.New("CA is down")))
	var unfinished *UnfinishedError
	if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.As(err, &unfinished) {
		t.Fatal(err)
	}
	ca.set(nil)
	var exists *ExistsError
	other := Request{Names: []string{"a.example"}, Key: issuer.ECDSAP384}
	if _, err := m.Make(t.Context(), other); !errors.As(err, &exists) || exists.ID != unfinished.ID || !exists.Unmade {
		t.Errorf("another key: %v", err)
	}
	other.Force = true
	if c, err := m.Make(t.Context(), other); err != nil || c.ID == unfinished.ID {
		t.Errorf("another key, by force: %v, %v", c, err)
	} else if err := m.Remove(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), unfinished.ID); err != nil {
		t.Fatal(err)
	}
	if c := make1(t, m, "a.example"); c.ID == unfinished.ID {
		t.Error("what was given up is made")
	}
}

// TestNothingStaysBehind of what cannot have become a certificate, such as one for
// names that are not ours.
func TestNothingStaysBehind(t *testing.T) {
	for title, at := range map[string]func(context.Context, stage) error{
		"no order":             fails(begun, errors.New("CA is down")),
		"a pending one":        fails(recorded, errors.New("no solver answers")),
		"one that is given up": fails(recorded, errOver),
	} {
		t.Run(title, func(t *testing.T) {
			_, m := newFleet(t)
			ca := newOrderCA(t, m)
			use(t, m, ca)
			ca.set(at)
			var unfinished *UnfinishedError
			if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); err == nil || errors.As(err, &unfinished) {
				t.Fatal(err)
			}
			if list, err := m.List(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("left behind: %v, %v", list, err)
			}
			ca.set(nil)
			make1(t, m, "a.example")
		})
	}
}

// TestAnUnfinishedCertificateThatComesToNothing is removed by the Make that finds out.
func TestAnUnfinishedCertificateThatComesToNothing(t *testing.T) {
	_, m := newFleet(t)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	ca.set(fails(finalised, errors.New("CA is down")))
	var unfinished *UnfinishedError
	if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.As(err, &unfinished) {
		t.Fatal(err)
	}
	ca.set(fails(recorded, errOver))
	if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.Is(err, errOver) {
		t.Fatal(err)
	}
	if list, err := m.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

// TestAMakerThatDied has left an order, and a claim: the next maker takes over when
// that has lapsed.
func TestAMakerThatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		ca := newOrderCA(t, m)
		ca.set(hang(finalised))
		bus := &sleepingBus{Log: f.log}
		other := *f
		other.log = bus
		dead := other.manager(t, "")
		use(t, dead, ca)
		ctx, kill := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = dead.Make(ctx, Request{Names: []string{"a.example"}})
		}()
		synctest.Wait()
		bus.set(true)
		kill()
		<-ended

		use(t, m, ca)
		ca.set(nil)
		var exists *ExistsError
		if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.As(err, &exists) || !exists.Unmade {
			t.Fatal(err)
		}
		time.Sleep(ClaimLapse)
		c := make1(t, m, "a.example")
		if begun, finalised := ca.counts(); c.ID != exists.ID || begun != 1 || finalised != 1 {
			t.Errorf("made %s, %s was begun: %d orders, %d finalised", c.ID, exists.ID, begun, finalised)
		}
	})
}
