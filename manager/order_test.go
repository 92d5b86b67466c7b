// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

// An orderCA is the built-in CA behind orders that outlive a call. What they are
// at real CAs is tested against Pebble; this one can be stopped anywhere, in
// virtual time.
type orderCA struct {
	real issuer.Issuer

	mu        sync.Mutex
	orders    map[string]*testOrder                    // guarded by mu; by address
	begun     int                                      // guarded by mu
	finalised int                                      // guarded by mu
	replaced  []*x509.Certificate                      // guarded by mu; what orders said that they replace
	at        func(ctx context.Context, s stage) error // guarded by mu; nil: nothing
}

type testOrder struct {
	request string
	chain   [][]byte
}

type stage string

const (
	begun     stage = "begun"
	recorded  stage = "recorded"
	finalised stage = "finalised"
)

func newOrderCA(t testing.TB, m *Manager) *orderCA {
	t.Helper()
	real, err := m.issuer(t.Context(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	return &orderCA{real: real, orders: make(map[string]*testOrder)}
}

// use puts an issuer in the place of m's internal one.
func use(t testing.TB, m *Manager, i issuer.Issuer) {
	t.Helper()
	if _, err := m.issuer(t.Context(), "internal"); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.issuers["internal"]
	c.issuer = i
	m.issuers["internal"] = c
}

// set says what happens from now on at each stage of an order.
func (ca *orderCA) set(at func(context.Context, stage) error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.at = at
}

func (ca *orderCA) reach(ctx context.Context, s stage) error {
	ca.mu.Lock()
	at := ca.at
	ca.mu.Unlock()
	if at == nil {
		return nil
	}
	return at(ctx, s)
}

func (ca *orderCA) counts() (begun, finalised int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.begun, ca.finalised
}

func (ca *orderCA) Issue(context.Context, *x509.CertificateRequest, time.Duration) ([][]byte, error) {
	return nil, errors.New("this CA is asked by orders")
}

func (ca *orderCA) Order(ctx context.Context, r issuer.OrderRequest) ([][]byte, error) {
	ca.mu.Lock()
	url, o := r.Resume, ca.orders[r.Resume]
	if o == nil {
		ca.begun++
		url, o = fmt.Sprintf("https://ca.example/order/%d", ca.begun), &testOrder{request: string(r.CSR.Raw)}
		ca.orders[url] = o
	}
	ca.replaced = append(ca.replaced, r.Replaces)
	ca.mu.Unlock()
	if o.request != string(r.CSR.Raw) {
		return nil, fmt.Errorf("order %s was for another request", url)
	}
	if url != r.Resume {
		if err := ca.reach(ctx, begun); err != nil {
			return nil, err
		}
		if err := r.Record(ctx, issuer.OrderStatus{URL: url, Status: "pending", Expires: time.Now().Add(time.Hour)}); err != nil {
			return nil, err
		}
	}
	if err := ca.reach(ctx, recorded); err != nil {
		return nil, &issuer.OrderError{URL: url, Status: "pending", Err: err, Over: errors.Is(err, errOver)}
	}
	if o.chain == nil {
		chain, err := ca.real.Issue(ctx, r.CSR, r.Lifetime)
		if err != nil {
			return nil, err
		}
		ca.mu.Lock()
		o.chain = chain
		ca.finalised++
		ca.mu.Unlock()
	}
	if err := ca.reach(ctx, finalised); err != nil {
		return nil, &issuer.OrderError{URL: url, Status: "valid", Err: err}
	}
	return o.chain, nil
}

var errOver = errors.New("the order is invalid")

// hang stops whoever comes to a stage, until its context ends.
func hang(where stage) func(context.Context, stage) error {
	return func(ctx context.Context, s stage) error {
		if s == where {
			<-ctx.Done()
		}
		return ctx.Err()
	}
}

func TestAnOrderIsWrittenDownFirst(t *testing.T) {
	_, m := newFleet(t)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	var seen []*event.Order
	var id string
	m.progress = func(of, _ string) { id = of }
	ca.set(func(ctx context.Context, s stage) error {
		c, err := m.Get(ctx, id)
		if err == nil {
			seen = append(seen, c.Order)
		}
		return err
	})
	c := make1(t, m, "a.example", "192.0.2.1")
	if len(seen) != 3 || seen[0] != nil || seen[1] == nil || seen[2] == nil {
		t.Fatalf("what stood on the bus: %+v", seen)
	}
	if o := seen[1]; o.Generation != 1 || o.Issuer != "internal" || o.URL != "https://ca.example/order/1" || o.Expires.IsZero() || o.At.IsZero() {
		t.Errorf("written down: %+v", o)
	}
	if r := c.History[0]; c.Order != nil || r.Order != "https://ca.example/order/1" || r.Issuer != "internal" {
		t.Errorf("afterwards: %+v %+v", c.Order, r)
	}
}

// TestAnOrderOutlivesItsManager stops managers at every stage of an order, as if
// they were killed. The next one, and another one, go on with the same order.
func TestAnOrderOutlivesItsManager(t *testing.T) {
	for _, where := range []stage{recorded, finalised} {
		for _, next := range []string{"same", "other"} {
			t.Run(string(where)+" "+next, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, m := newFleet(t)
					ca := newOrderCA(t, m)
					use(t, m, ca)
					c := make1(t, m, "a.example")
					ca.set(hang(where))
					bus := &sleepingBus{Log: f.log}
					dead, err := New(Config{Log: bus, Identity: f.identity, Instance: "same", Logger: slog.New(slog.DiscardHandler)})
					if err != nil {
						t.Fatal(err)
					}
					use(t, dead, ca)
					ctx, kill := context.WithCancel(t.Context())
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						_, _ = dead.Renew(ctx, c.ID, event.ReasonRenewal)
					}()
					synctest.Wait()
					held, err := m.Get(t.Context(), c.ID)
					if err != nil || held.Order == nil || held.Claim == nil {
						t.Fatal(held, err)
					}
					bus.set(true) // it writes nothing any more
					kill()
					<-ended

					ca.set(nil)
					heir := f.manager(t, next)
					use(t, heir, ca)
					got, err := heir.Renew(t.Context(), c.ID, event.ReasonRenewal)
					if err != nil || got.Generation != 2 || got.Order != nil {
						t.Fatal(got, err)
					}
					if begun, finalised := ca.counts(); begun != 2 || finalised != 2 {
						t.Errorf("%d orders were begun and %d finalised for two generations", begun, finalised)
					}
					csr, err := x509.ParseCertificateRequest(held.Order.Request)
					if err != nil {
						t.Fatal(err)
					}
					if leaf, err := got.Leaf(); err != nil || !leaf.PublicKey.(*ecdsa.PublicKey).Equal(csr.PublicKey) {
						t.Error("the key is not that of the order", err)
					}
					if r := got.History[1]; r.Order != held.Order.URL {
						t.Errorf("the record names order %s", r.Order)
					}
				})
			})
		}
	}
}

// TestWhatDoesNotFitAnOrder has one case for each way in which an order that is
// under way is not for what is wanted next: another one is begun, with a new key.
func TestWhatDoesNotFitAnOrder(t *testing.T) {
	for what, change := range map[string]func(*event.State){
		"nothing":      func(*event.State) {},
		"mark":         nil,
		"compromised":  func(*event.State) {},
		"rekey mark":   func(s *event.State) { s.Mark = &event.Mark{Reason: event.ReasonRekey, At: s.Order.At} },
		"other names":  func(s *event.State) { s.Spec.Names = []string{"b.example"} },
		"other key":    func(s *event.State) { s.Spec.KeyType = "ecdsa-p384" },
		"other issuer": func(s *event.State) { s.Order.Issuer = "another" },
		"generation":   func(s *event.State) { s.Order.Generation++ },
		"no request":   func(s *event.State) { s.Order.Request = []byte("request") },
		"sealed":       func(s *event.State) { s.Order.Sealed[len(s.Order.Sealed)-1] ^= 1 },
	} {
		t.Run(what, func(t *testing.T) {
			_, m := newFleet(t)
			ca := newOrderCA(t, m)
			use(t, m, ca)
			c := make1(t, m, "a.example")
			ca.set(func(_ context.Context, s stage) error {
				if s == recorded {
					return errors.New("CA is down")
				}
				return nil
			})
			if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err == nil {
				t.Fatal("renewed")
			}
			ca.set(nil)
			c = at(t, m, c.ID)
			if c.Order == nil || c.Failure == nil {
				t.Fatalf("%+v", c.State)
			}
			under := c.Order.URL
			if change == nil {
				if err := m.Mark(t.Context(), c.ID, event.ReasonCompromised); err != nil {
					t.Fatal(err)
				}
			} else {
				change(&c.State)
				if _, err := m.append(t.Context(), c.Position, &c.State); err != nil {
					t.Fatal(err)
				}
			}
			reason := event.ReasonRenewal
			if what == "compromised" || what == "rekey mark" {
				reason = event.ReasonCompromised
			}
			got, err := m.Renew(t.Context(), c.ID, reason)
			if err != nil {
				t.Fatal(err)
			}
			if same := got.History[1].Order == under; same != (what == "nothing") {
				t.Errorf("of order %s, now %s", under, got.History[1].Order)
			}
		})
	}
}

// TestWhatIsNotedOfAFailure is about what a CA says of why it does not sign, and of
// when it wants to be asked again.
func TestWhatIsNotedOfAFailure(t *testing.T) {
	said := &issuer.Problem{
		Type: "urn:ietf:params:acme:error:rateLimited", Detail: strings.Repeat("too many. ", 1000), Status: 429,
		Parts: []issuer.Problem{{Type: "urn:ietf:params:acme:error:caa", Detail: "no", Name: "a.example"}},
	}
	for what, c := range map[string]struct {
		err     error
		kept    bool
		atLeast time.Duration
		atMost  time.Duration
	}{
		"no hint":     {said, true, time.Minute, time.Minute},
		"a hint":      {&issuer.Hint{After: time.Now().Add(3 * time.Hour), Err: said}, true, 2 * time.Hour, 3 * time.Hour},
		"an old hint": {&issuer.Hint{After: time.Now().Add(-time.Hour), Err: said}, true, time.Minute, time.Minute},
		"a year":      {&issuer.Hint{After: time.Now().AddDate(1, 0, 0), Err: said}, true, 24 * time.Hour, 24 * time.Hour},
		"over":        {fmt.Errorf("%w: %w", errOver, said), false, time.Minute, time.Minute},
	} {
		t.Run(what, func(t *testing.T) {
			_, m := newFleet(t)
			ca := newOrderCA(t, m)
			use(t, m, ca)
			made := make1(t, m, "a.example")
			ca.set(func(_ context.Context, s stage) error {
				if s == recorded {
					return c.err
				}
				return nil
			})
			if _, err := m.Renew(t.Context(), made.ID, event.ReasonRenewal); err == nil {
				t.Fatal("renewed")
			}
			now := at(t, m, made.ID)
			f := now.Failure
			if f == nil || f.Issuer != "internal" || f.Order != "https://ca.example/order/2" || (now.Order != nil) != c.kept || now.Claim != nil {
				t.Fatalf("noted: %+v, order %+v", f, now.Order)
			}
			if p := f.Problem; p == nil || p.Status != 429 || p.Type != said.Type || len(p.Parts) != 1 || p.Parts[0].Name != "a.example" || len(p.Detail) > 4096 {
				t.Errorf("noted of what the CA said: %+v", p)
			}
			if wait := f.Next.Sub(f.At); wait < c.atLeast || wait > c.atMost {
				t.Errorf("tried again after %v", wait)
			}
			if _, hinted := issuer.RetryAfter(c.err); f.RetryAfter.IsZero() == hinted {
				t.Errorf("asked to be left alone until %v", f.RetryAfter)
			}
		})
	}
}

// TestAnAnswerThatCannotBeUsedEndsItsOrder: asking for the same certificate again
// would give the same answer.
func TestAnAnswerThatCannotBeUsedEndsItsOrder(t *testing.T) {
	_, m := newFleet(t)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	c := make1(t, m, "a.example")
	wrong := ca.orders["https://ca.example/order/1"].chain
	ca.set(func(_ context.Context, s stage) error {
		if s == finalised {
			ca.mu.Lock()
			defer ca.mu.Unlock()
			ca.orders[fmt.Sprintf("https://ca.example/order/%d", ca.begun)].chain = wrong
		}
		return nil
	})
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); !errors.Is(err, issuer.ErrWrongKey) {
		t.Fatal(err)
	}
	if now := at(t, m, c.ID); now.Order != nil || now.Failure == nil {
		t.Errorf("%+v", now.State)
	}
	ca.set(nil)
	if got, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err != nil || got.Generation != 2 {
		t.Error(got, err)
	}
}

// TestAPauseInBetween is a write to the state that touches no claim: the generation
// that is being made is published nevertheless, with it, and made once.
func TestAPauseInBetween(t *testing.T) {
	for _, where := range []stage{begun, finalised} {
		t.Run(string(where), func(t *testing.T) {
			_, m := newFleet(t)
			ca := newOrderCA(t, m)
			use(t, m, ca)
			c := make1(t, m, "a.example")
			ca.set(func(ctx context.Context, s stage) error {
				if s != where {
					return nil
				}
				now, err := m.Get(ctx, c.ID)
				if err == nil {
					now.Pause = &event.Pause{At: time.Now(), Reason: "maintenance"}
					_, err = m.append(ctx, now.Position, &now.State)
				}
				return err
			})
			got, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal)
			if err != nil || got.Generation != 2 || got.Pause == nil || got.Pause.Reason != "maintenance" {
				t.Fatal(got, err)
			}
			if begun, _ := ca.counts(); begun != 2 {
				t.Errorf("%d orders for two generations", begun)
			}
		})
	}
}

func TestWhatAnOrderReplaces(t *testing.T) {
	_, m := newFleet(t)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	first := make1(t, m, "a.example")
	leaf, err := first.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	second, err := m.Renew(t.Context(), first.ID, event.ReasonRenewal)
	if err != nil {
		t.Fatal(err)
	}
	if ca.replaced[0] != nil || ca.replaced[1] == nil || !ca.replaced[1].Equal(leaf) {
		t.Errorf("the orders replaced %v", ca.replaced)
	}
	if second.replaces("another") != nil {
		t.Error("an issuer is told to replace what another one signed")
	}
	brought, err := m.Import(t.Context(), elsewhere(t, newSigner(t), "b.example"))
	if err != nil || brought.replaces("internal") != nil {
		t.Error("what was imported is replaced at a CA that does not know it", err)
	}
}
