// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
)

func TestMain(m *testing.M) {
	bus.Register(usersDriver{}, "users")
	goleak.VerifyTestMain(m, acmetest.IgnorePebble())
}

const sharedConfig = `
issuers:
  internal:
    type: local
    lifetime: 90d
`

// A fleet is a bus with a log, a group and an issuer, and managers on it that
// share an identity.
type fleet struct {
	log      bus.Log
	identity *seal.Identity
	group    *seal.PrivateKey
	solver   solver.Solver // answers all challenges; nil: replicas alone do
}

// newFleet is one without a board: nothing happens on it but renewals, and a
// year takes no time.
func newFleet(t testing.TB) (*fleet, *Manager) {
	t.Helper()
	return newFleetOn(t, struct{ bus.Log }{membus.New()})
}

// newReportingFleet is one whose replicas report, and whose managers sign
// beacons.
func newReportingFleet(t testing.TB) (*fleet, *Manager) {
	t.Helper()
	return newFleetOn(t, membus.New())
}

func newFleetOn(t testing.TB, log bus.Log) (*fleet, *Manager) {
	t.Helper()
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{log: log, identity: id, group: key}
	m := f.manager(t, "")
	ctx := context.Background()
	if err := m.Init(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.AddGroup(ctx, DefaultGroup, key.Public()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateConfig(ctx, []byte(sharedConfig), bus.Position{}); err != nil {
		t.Fatal(err)
	}
	return f, m
}

func (f *fleet) manager(t testing.TB, instance string) *Manager {
	t.Helper()
	c := Config{Log: f.log, Identity: f.identity, Instance: instance, Logger: slog.New(slog.DiscardHandler)}
	if f.solver != nil {
		c.Solvers = f.solvers
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (f *fleet) solvers(string, config.Solver, []string) (solver.Solver, []string, error) {
	return f.solver, solver.Types(), nil
}

// copyOf returns what stands for replicas.
func (f *fleet) copyOf(t testing.TB, id string) event.Body {
	t.Helper()
	key := event.CertificateKey(DefaultGroup, id)
	entry, err := f.log.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Open([]*seal.VerifyKey{f.identity.Signing.Public()}, DefaultTenant, key, entry.Data)
	if err != nil {
		t.Fatal(err)
	}
	return e.Body
}

// A faultyIssuer is the real one behind something that counts and fails.
type faultyIssuer struct {
	real   issuer.Issuer
	issued atomic.Int64

	mu     sync.Mutex
	before func(context.Context) error // guarded by mu; nil: nothing
}

// set says what happens from now on before each order.
func (i *faultyIssuer) set(before func(context.Context) error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.before = before
}

func (i *faultyIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	i.mu.Lock()
	before := i.before
	i.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return nil, err
		}
	}
	i.issued.Add(1)
	return i.real.Issue(ctx, csr, lifetime)
}

// wrap puts a faulty issuer before m's real one.
func wrap(t testing.TB, m *Manager, i *faultyIssuer) {
	t.Helper()
	real, err := m.issuer(context.Background(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	if old, ok := real.(*faultyIssuer); ok {
		real = old.real
	}
	i.real = real
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.issuers["internal"]
	c.issuer = i
	m.issuers["internal"] = c
}

func make1(t testing.TB, m *Manager, names ...string) *Managed {
	t.Helper()
	c, err := m.Make(context.Background(), Request{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLifeOfACertificate(t *testing.T) {
	f, m := newFleet(t)
	ctx := t.Context()
	c := make1(t, m, "WWW.Example.com.", "example.com")
	if c.Generation != 1 || c.Epoch != 1 || !slices.Equal(c.Spec.Names, []string{"example.com", "www.example.com"}) {
		t.Fatalf("%+v", c.State)
	}
	first, err := c.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	copied := f.copyOf(t, c.ID).(*event.Certificate)
	if copied.Version != c.Version || len(copied.Chain) != 2 {
		t.Fatalf("the group's copy: %+v", copied)
	}
	pkcs8, err := copied.OpenKey(DefaultTenant, []*seal.PrivateKey{f.group})
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil || !first.PublicKey.(*ecdsa.PublicKey).Equal(key.(crypto.Signer).Public()) {
		t.Fatal("the sealed key is not the leaf's", err)
	}

	again, err := m.Renew(ctx, c.ID, event.ReasonRekey)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := again.Leaf()
	if again.ID != c.ID || again.Generation != 2 || second.SerialNumber.Cmp(first.SerialNumber) == 0 ||
		string(second.RawSubjectPublicKeyInfo) == string(first.RawSubjectPublicKeyInfo) {
		t.Error("a renewal keeps the id, and has another serial and key")
	}
	if h := again.History; len(h) != 2 || h[0].Reason != event.ReasonNew || h[1].Reason != event.ReasonRekey ||
		h[1].Manager != f.identity.Signing.Public().ID() || string(h[1].Serial) != string(second.SerialNumber.Bytes()) {
		t.Errorf("history %+v", h)
	}

	if err := m.Remove(ctx, c.ID); err != nil {
		t.Fatal(err)
	}
	var removed *RemovedError
	if _, err := m.Renew(ctx, c.ID, event.ReasonRekey); !errors.As(err, &removed) {
		t.Errorf("renewing what was removed: %v", err)
	}
	if err := m.Remove(ctx, c.ID); !errors.As(err, &removed) {
		t.Errorf("removing again: %v", err)
	}
	if r, ok := f.copyOf(t, c.ID).(*event.Removal); !ok || r.Generation != 3 {
		t.Errorf("the group's copy after the removal: %+v", r)
	}
	if list, err := m.List(ctx); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func TestFind(t *testing.T) {
	_, m := newFleet(t)
	ctx := t.Context()
	var ids []string
	for i := range 80 { // more than there are first characters
		ids = append(ids, make1(t, m, fmt.Sprintf("h%d.example", i)).ID)
	}
	for _, id := range ids[:3] {
		if c, err := m.Find(ctx, id[:9]); err != nil || c.ID != id {
			t.Fatal(id, err)
		}
	}
	var ambiguous *AmbiguousError
	i := slices.IndexFunc(ids, func(id string) bool {
		_, err := m.Find(ctx, id[:1])
		return errors.As(err, &ambiguous)
	})
	if i < 0 || len(ambiguous.IDs) < 2 || ambiguous.Prefix != ids[i][:1] {
		t.Error("no prefix of one character is ambiguous")
	}
	var missing *NotFoundError
	for _, p := range []string{"", "nonesuch", "AAAAAAAAAAA", "../etc"} {
		if _, err := m.Find(ctx, p); !errors.As(err, &missing) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestNamesHaveOneHolder(t *testing.T) {
	f, m := newFleet(t)
	ctx := t.Context()
	var exists *ExistsError
	var wg sync.WaitGroup
	var made, refused atomic.Int32
	ids := make(chan string, 16)
	for range 16 {
		m := f.manager(t, "")
		wg.Go(func() {
			c, err := m.Make(ctx, Request{Names: []string{"b.example", "a.example"}})
			var exists *ExistsError
			switch {
			case err == nil:
				made.Add(1)
				ids <- c.ID
			case errors.As(err, &exists):
				refused.Add(1)
				ids <- exists.ID
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(ids)
	id := <-ids
	for other := range ids {
		if other != id {
			t.Errorf("%s and %s", id, other)
		}
	}
	if made.Load() != 1 || refused.Load() != 15 {
		t.Fatalf("%d made, %d refused", made.Load(), refused.Load())
	}
	// Another set of names, or of another group, is another matter.
	make1(t, m, "a.example")
	if _, err := m.Make(ctx, Request{Names: []string{"a.example"}, Group: "nonesuch"}); err == nil || errors.As(err, &exists) {
		t.Errorf("an unknown group: %v", err)
	}
	forced, err := m.Make(ctx, Request{Names: []string{"a.example", "b.example"}, Force: true})
	if err != nil || forced.ID == id {
		t.Fatal(forced, err)
	}
	// Only when both are gone are the names free.
	for _, gone := range []string{forced.ID, id} {
		if _, err := m.Make(ctx, Request{Names: []string{"a.example", "b.example"}}); !errors.As(err, &exists) {
			t.Fatal(err)
		}
		if err := m.Remove(ctx, gone); err != nil {
			t.Fatal(err)
		}
	}
	make1(t, m, "a.example", "b.example")
}

// TestAHalfMadeCertificateIsFinished finds a claim on names whose maker died.
func TestAHalfMadeCertificateIsFinished(t *testing.T) {
	f, m := newFleet(t)
	spec, err := m.spec(t.Context(), Request{Names: []string{"a.example"}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := m.claimNames(t.Context(), spec, false)
	if err != nil {
		t.Fatal(err)
	}
	other := f.manager(t, "")
	var exists *ExistsError
	if _, err := other.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.As(err, &exists) || exists.ID != id {
		t.Fatal(err)
	}
	c, err := other.Get(t.Context(), id)
	if err != nil || c.Generation != 0 || !c.RenewAt().Before(time.Now()) {
		t.Fatal(c, err)
	}
}

// TestAFailedMake says once what could not be made, and leaves the names free.
func TestAFailedMake(t *testing.T) {
	_, m := newFleet(t)
	i := new(faultyIssuer)
	wrap(t, m, i)
	i.set(func(context.Context) error { return errors.New("CA is down") })
	for range 2 {
		_, err := m.Make(t.Context(), Request{Names: []string{"a.example"}})
		if err == nil || strings.Count(err.Error(), "a.example") != 1 || !strings.HasPrefix(err.Error(), "making ") || !strings.HasSuffix(err.Error(), "CA is down") {
			t.Error(err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	_, m := newFleet(t)
	for what, r := range map[string]Request{
		"no names":          {},
		"a bad name":        {Names: []string{"a..b"}},
		"an unknown issuer": {Names: []string{"a.example"}, Issuer: "nonesuch"},
		"an unknown group":  {Names: []string{"a.example"}, Group: "nonesuch"},
		"a bad group":       {Names: []string{"a.example"}, Group: "../x"},
	} {
		if _, err := m.Make(t.Context(), r); err == nil {
			t.Errorf("%s: made", what)
		}
	}
	wrap(t, m, &faultyIssuer{before: func(context.Context) error { return fmt.Errorf("%w: no", issuer.ErrRefused) }})
	if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.Is(err, issuer.ErrRefused) {
		t.Errorf("an issuer that refuses: %v", err)
	}
	list, err := m.List(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
	wrap(t, m, new(faultyIssuer))
	make1(t, m, "a.example") // its names are free again
}

// TestConcurrentRenewals renews one certificate 32 times at once from eight
// managers: every generation is ordered once, and everybody gets a true answer.
func TestConcurrentRenewals(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	var wg sync.WaitGroup
	var issued []*faultyIssuer
	for range 8 {
		m, i := f.manager(t, ""), new(faultyIssuer)
		wrap(t, m, i)
		issued = append(issued, i)
		for range 4 {
			wg.Go(func() {
				got, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
				if err != nil {
					t.Error(err)
					return
				}
				leaf, err := got.Leaf()
				if err != nil || got.Generation < 2 || string(got.History[len(got.History)-1].Serial) != string(leaf.SerialNumber.Bytes()) {
					t.Errorf("generation %d: %v", got.Generation, err)
				}
			})
		}
	}
	wg.Wait()
	end, err := m.Get(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	var orders int64
	for _, i := range issued {
		orders += i.issued.Load()
	}
	if uint64(orders) != end.Generation-1 {
		t.Errorf("%d orders for %d generations", orders, end.Generation-1)
	}
	for i, r := range end.History {
		if r.Generation != uint64(i+1) {
			t.Errorf("record %d is generation %d", i, r.Generation)
		}
	}
	if f.copyOf(t, c.ID).(*event.Certificate).Version != end.Version {
		t.Error("the copy is not the newest")
	}
	t.Logf("32 renewals made %d generations", orders)
}

// TestRenewalAgainstRemoval: a removal wins over a renewal under way.
func TestRenewalAgainstRemoval(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	started, goOn := make(chan struct{}), make(chan struct{})
	wrap(t, m, &faultyIssuer{before: func(context.Context) error { close(started); <-goOn; return nil }})
	result := make(chan error)
	go func() {
		_, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
		result <- err
	}()
	<-started
	if err := f.manager(t, "").Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	var removed *RemovedError
	if err := <-result; !errors.As(err, &removed) {
		t.Errorf("the renewal ended with %v", err)
	}
	if _, ok := f.copyOf(t, c.ID).(*event.Removal); !ok {
		t.Error("the removed certificate came back")
	}
}

func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		ctx := t.Context()

		// A manager claims and dies. Another one waits for the claim to lapse.
		if _, err := f.manager(t, "dead").claim(ctx, c, event.ReasonRenewal, false); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		got, err := m.Renew(ctx, c.ID, event.ReasonRekey)
		if err != nil || got.Generation != 2 {
			t.Fatal(got, err)
		}
		if waited := time.Since(start); waited < ClaimLapse || waited > ClaimLapse+time.Second {
			t.Errorf("waited %v for a dead claim", waited)
		}

		// The same instance, run again, knows that its claim is dead.
		if _, err := f.manager(t, "dead").claim(ctx, got, event.ReasonRenewal, false); err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		if got, err = f.manager(t, "dead").Renew(ctx, c.ID, event.ReasonRekey); err != nil || got.Generation != 3 {
			t.Fatal(got, err)
		}
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("waited %v for its own dead claim", waited)
		}

		// A manager that sleeps through its claim publishes nothing.
		asleep := &sleepingBus{Log: f.log}
		sleeper, err := New(Config{Log: asleep, Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		i := new(faultyIssuer)
		i.before = func(context.Context) error {
			asleep.set(true)
			time.Sleep(4 * time.Minute)
			asleep.set(false)
			return nil
		}
		wrap(t, sleeper, i)
		slept := make(chan *Managed)
		go func() {
			c, err := sleeper.Renew(ctx, c.ID, event.ReasonRekey)
			if err != nil {
				t.Error(err)
			}
			slept <- c
		}()
		synctest.Wait()
		got, err = m.Renew(ctx, c.ID, event.ReasonRekey)
		if err != nil || got.Generation != 4 {
			t.Fatal(got, err)
		}
		late := <-slept
		if late.Generation != 4 || string(late.Current) != string(got.Current) {
			t.Errorf("the sleeper published generation %d", late.Generation)
		}
	})
}

// sleepingBus is the bus of a manager that is stopped for a while: nothing is
// written then, the claim is not renewed either.
type sleepingBus struct {
	bus.Log
	asleep atomic.Bool
}

func (l *sleepingBus) set(asleep bool) { l.asleep.Store(asleep) }

func (l *sleepingBus) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if l.asleep.Load() {
		return bus.Position{}, errors.New("asleep")
	}
	return l.Log.Append(ctx, key, after, data)
}

// TestASlowIssuerKeepsItsClaim: an issuer that takes longer than a claim lasts
// is asked once, whoever else wants the generation.
func TestASlowIssuerKeepsItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		var orders []*faultyIssuer
		results := make(chan *Managed)
		for range 3 {
			m, i := f.manager(t, ""), new(faultyIssuer)
			wrap(t, m, i)
			i.set(func(context.Context) error { time.Sleep(4 * time.Minute); return nil })
			orders = append(orders, i)
			go func() {
				got, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
				if err != nil {
					t.Error(err)
				}
				results <- got
			}()
		}
		start := time.Now()
		for range orders {
			if got := <-results; got == nil || got.Generation != 2 {
				t.Error(got)
			}
		}
		var n int64
		for _, i := range orders {
			n += i.issued.Load()
		}
		if n != 1 || time.Since(start) > 5*time.Minute {
			t.Errorf("%d orders in %v", n, time.Since(start))
		}
	})
}

func TestWaitersShareAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		slow := &faultyIssuer{before: func(context.Context) error { time.Sleep(time.Second); return errors.New("CA is down") }}
		wrap(t, m, slow)
		results := make(chan error)
		renew := func(m *Manager) {
			_, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
			results <- err
		}
		go renew(m)
		synctest.Wait()
		for range 5 {
			go renew(f.manager(t, ""))
		}
		for range 6 {
			if err := <-results; err == nil || !strings.Contains(err.Error(), "CA is down") {
				t.Error(err)
			}
		}
		got, err := m.Get(t.Context(), c.ID)
		if err != nil || got.Generation != 1 || got.Failure.Attempts != 1 || got.Claim != nil {
			t.Errorf("%+v %v", got.State, err)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	_, m := newFleet(t)
	c := make1(t, m, "a.example")
	for range event.MaxHistory + 5 {
		if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
	}
	got, err := m.Get(t.Context(), c.ID)
	if err != nil || len(got.History) != event.MaxHistory || got.History[event.MaxHistory-1].Generation != event.MaxHistory+6 {
		t.Fatal(len(got.History), err)
	}
}

func TestSharedConfig(t *testing.T) {
	_, m := newFleet(t)
	ctx := t.Context()
	text, at, err := m.ConfigText(ctx)
	if err != nil || string(text) != sharedConfig {
		t.Fatal(err)
	}
	if _, err := m.UpdateConfig(ctx, []byte(sharedConfig+"    nonesuch: 1\n"), at); err == nil || !strings.Contains(err.Error(), "nonesuch") || !strings.Contains(err.Error(), "line 6") {
		t.Errorf("an unknown key: %v", err)
	}
	_, err = m.UpdateConfig(ctx, []byte("default_issuer: internal\n"+sharedConfig+"  second:\n    type: local\n"), at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateConfig(ctx, []byte(sharedConfig), at); !conflict(err) {
		t.Errorf("an update of what was there before: %v", err)
	}
	c, err := m.Make(ctx, Request{Names: []string{"a.example"}, Issuer: "second"})
	if err != nil || c.Spec.Issuer != "second" {
		t.Error(c, err)
	}
}

func TestConfigMustFitWhatIsThere(t *testing.T) {
	_, m := newFleet(t)
	make1(t, m, "a.example")
	_, at, err := m.ConfigText(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"an issuer in use is left out":  "issuers:\n  other:\n    type: local\n",
		"a CA gets another type of key": "issuers:\n  internal:\n    type: local\n    key: rsa-2048\n",
	} {
		if _, err := m.UpdateConfig(t.Context(), []byte(text), at); err == nil || !strings.Contains(err.Error(), "internal") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestEntriesOfStrangersAreNotBelieved(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	stranger, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	s := c.State
	s.Spec.Names = []string{"evil.example"}
	data, err := event.Sign(stranger.Signing, DefaultTenant, time.Now(), &s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.log.Append(t.Context(), event.StateKey(c.ID), c.Position, data); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Errorf("a stranger's state: %v", err)
	}
	other := make1(t, m, "b.example")
	list, err := m.List(t.Context())
	if !errors.Is(err, seal.ErrUnknownSigner) || len(list) != 1 || list[0].ID != other.ID {
		t.Errorf("listing: %v %v", list, err)
	}
}
