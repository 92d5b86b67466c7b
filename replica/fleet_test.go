// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// memory is the driver that the tests' directories name: "memory://NAME".
type memory struct {
	mu    sync.Mutex
	buses map[string]bus.Boarder
	// granting, if not nil, is called before credentials are made of a grant.
	granting func(grant string)
}

var buses = &memory{buses: make(map[string]bus.Boarder)}

func init() { bus.Register(buses, "memory") }

// add makes a log one that can be opened, and returns its URL.
func (m *memory) add(l bus.Boarder) string {
	url := "memory://" + rand.Text()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buses[url] = l
	return url
}

func (m *memory) Open(dir, url string, _ bus.Options) (bus.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.buses[url]
	if !ok {
		return nil, fmt.Errorf("no bus at %s", url)
	}
	return memoryConn{l}, nil
}

func (m *memory) User(secret []byte) (string, error) { return fmt.Sprintf("user-%x", secret[:4]), nil }

func (m *memory) Credentials(grant string, secret []byte) ([]byte, error) {
	m.mu.Lock()
	granting := m.granting
	m.mu.Unlock()
	if granting != nil {
		granting(grant)
	}
	return fmt.Appendf(nil, "%s %x", grant, secret[:4]), nil
}

// before sets what is called before credentials are made, until the test ends.
func (m *memory) before(t testing.TB, call func(grant string)) {
	set := func(call func(string)) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.granting = call
	}
	set(call)
	t.Cleanup(func() { set(nil) })
}

type memoryConn struct{ bus.Boarder }

func (memoryConn) Connected(ctx context.Context) error { return ctx.Err() }
func (memoryConn) Check() error                        { return nil }
func (memoryConn) Close()                              {}

// A fleet is a world whose managers also take joins, by hand.
type fleet struct {
	*world
	url string
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	return newFleetOn(t, membus.New())
}

func newFleetOn(t testing.TB, log bus.Boarder) *fleet {
	t.Helper()
	w := newWorld(t)
	w.log = log
	return &fleet{world: w, url: buses.add(log)}
}

// token makes a token and tells the bus of it.
func (f *fleet) token() *event.Token {
	t := event.NewToken()
	t.Tenant, t.Group, t.Expires = "default", "default", time.Now().Add(15*time.Minute)
	t.Managers, t.Serial = [][]byte{f.signer.Public().Bytes()}, 1
	t.URLs, t.Grant = []string{f.url}, "grant-of-token"
	return t
}

// requested waits for the request by a token and returns it.
func (f *fleet) requested(token *event.Token) *event.JoinRequest {
	f.t.Helper()
	key, err := token.SigningKey()
	if err != nil {
		f.t.Fatal(err)
	}
	for u, err := range f.log.Follow(f.t.Context(), event.JoinKey(token.ID), bus.Position{}) {
		if err != nil {
			f.t.Fatal(err)
		}
		if u.CaughtUp {
			continue
		}
		e, err := event.Open([]*seal.VerifyKey{key.Public()}, "default", u.Key, u.Data)
		if err != nil {
			f.t.Fatal(err)
		}
		return e.Body.(*event.JoinRequest)
	}
	return nil
}

// member puts the member's entry, with these keys granted.
func (f *fleet) member(m *event.Member, keys ...*seal.PrivateKey) {
	f.t.Helper()
	if err := m.Seal("default", keys); err != nil {
		f.t.Fatal(err)
	}
	f.put(event.MemberKey(m.Group, m.ID), f.sign(m))
}

// joined joins a new directory and returns it and the member.
func (f *fleet) joined() (dir string, m *event.Member) {
	f.t.Helper()
	dir = filepath.Join(f.t.TempDir(), "host")
	token := f.token()
	answered := make(chan *event.Member)
	go func() {
		m := &event.Member{JoinRequest: *f.requested(token), Grant: "grant-of-member", Joined: time.Now()}
		f.member(m, f.groupKey)
		answered <- m
	}()
	if _, err := replica.Join(f.t.Context(), replica.JoinConfig{Token: token, Dir: dir, Name: "host-1", Logger: quiet}); err != nil {
		f.t.Fatal(err)
	}
	return dir, <-answered
}

// beacon signs what stands on the bus, as a manager does.
func (f *fleet) beacon() {
	f.t.Helper()
	f.notice(f.beaconOf(f.signer))
}

func (f *fleet) beaconOf(by *seal.SigningKey) []byte {
	f.t.Helper()
	versions := make(map[string]event.Version)
	b := &event.Beacon{Group: "default", Every: event.BeaconEvery}
	for u, err := range f.log.Follow(f.t.Context(), event.GroupScope("default"), bus.Position{}) {
		if err != nil {
			f.t.Fatal(err)
		}
		if u.CaughtUp {
			b.Position = u.Position.String()
			break
		}
		e, err := event.Trusted("default", u.Data)
		if err != nil {
			f.t.Fatal(err)
		}
		switch body := e.Body.(type) {
		case *event.Certificate:
			versions[body.ID] = body.Version
		case *event.Removal:
			versions[body.ID] = body.Version
		}
	}
	b.Count, b.Digest = uint64(len(versions)), event.NewDigest(versions)
	data, err := event.Sign(by, "default", time.Now(), b)
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// notice makes data the group's beacon.
func (f *fleet) notice(data []byte) {
	f.t.Helper()
	if err := f.log.Board().Put(f.t.Context(), event.BeaconKey("default"), data); err != nil {
		f.t.Fatal(err)
	}
}

// receipt returns the pages that the member has on the board.
func (f *fleet) receipt(m *event.Member) []*event.Receipt {
	f.t.Helper()
	own, err := seal.NewVerifyKey(m.SignKey)
	if err != nil {
		f.t.Fatal(err)
	}
	pages := make(map[uint64]*event.Receipt)
	for u, err := range f.log.Board().Follow(f.t.Context(), event.ReceiptScope+"/default/"+m.ID, bus.Position{}) {
		if err != nil {
			f.t.Fatal(err)
		}
		if u.CaughtUp {
			break
		}
		e, err := event.Open([]*seal.VerifyKey{own}, "default", u.Key, u.Data)
		if err != nil {
			f.t.Fatal(err)
		}
		r := e.Body.(*event.Receipt)
		pages[r.Page] = r
	}
	out := make([]*event.Receipt, 0, len(pages))
	for i := range uint64(len(pages)) {
		out = append(out, pages[i])
	}
	return out
}

var quiet = slog.New(slog.DiscardHandler)

// config is what a program in a joined directory gives.
func inDir(dir string) replica.Config { return replica.Config{Dir: dir, Logger: quiet} }

func contains(err error, texts ...string) error {
	if err == nil {
		return errors.New("no error")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			return fmt.Errorf("%q does not say %q", err, text)
		}
	}
	return nil
}
