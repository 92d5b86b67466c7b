// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/event"
)

// use connects as a user of tenant red who was granted something.
func (f *fleet) use(t *testing.T, name string, by func(user string) (string, error)) bus.Conn {
	t.Helper()
	token, seed := f.grant(t, name, by)
	f.write(t, name+".creds", func() ([]byte, error) { return jwt.FormatUserConfig(token, seed) })
	return f.connect(t, bus.Options{Creds: name + ".creds", Tenant: "red"})
}

// held returns the keys under a scope, and the position of the mark.
func held(t *testing.T, l bus.Log, scope string, from bus.Position) (keys []string, at bus.Position) {
	t.Helper()
	for u, err := range l.Follow(t.Context(), scope, from) {
		if err != nil {
			t.Fatalf("following %s: %v", scope, err)
		}
		if u.CaughtUp {
			return keys, u.Position
		}
		keys = append(keys, u.Key)
	}
	return nil, at
}

// TestRightsSuffice: what the credentials allow is enough for what their owners
// have to do.
func TestRightsSuffice(t *testing.T) {
	f := startFleet(t)
	manager := f.use(t, "manager", f.manager("red"))
	member := event.MemberKey("web", web1)
	for _, key := range []string{event.CertificateKey("web", api1), member, event.ManagersKey, event.ChallengesKey("web"), event.StateKey(api1)} {
		if _, err := manager.Append(t.Context(), key, bus.Position{}, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := manager.Board().Put(t.Context(), event.BeaconKey("web"), []byte("beacon")); err != nil {
		t.Fatal(err)
	}

	if id, err := manager.(*jetstream.Log).Create(t.Context(), ""); err != nil || id == "" {
		t.Errorf("a manager finds the log %q, %v", id, err)
	}

	replica := f.use(t, "replica", f.replica("web", web1))
	for scope, want := range map[string]string{
		"group/web": event.CertificateKey("web", api1), member: member,
		event.ManagersKey: event.ManagersKey, event.ChallengesKey("web"): event.ChallengesKey("web"),
	} {
		got, at := held(t, replica, scope, bus.Position{})
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v", scope, got)
		}
		if got, again := held(t, replica, scope, at); len(got) != 0 || again != at {
			t.Errorf("%s again from %v: %v, at %v", scope, at, got, again)
		}
	}
	for _, key := range []string{member, event.ManagersKey} {
		if e, err := replica.Get(t.Context(), key); err != nil || string(e.Data) != key {
			t.Errorf("%s: %q, %v", key, e.Data, err)
		}
	}
	for u, err := range replica.Board().Follow(t.Context(), event.BeaconKey("web"), bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.Key == event.BeaconKey("web") {
			break
		}
	}
	receipt := event.ReceiptKey("web", web1, 0)
	if err := replica.Board().Put(t.Context(), receipt, []byte("receipt")); err != nil {
		t.Fatal(err)
	}
	for u, err := range manager.Board().Follow(t.Context(), event.ReceiptScope, bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.Key == receipt && string(u.Data) == "receipt" {
			break
		}
	}

	host := f.use(t, "host", f.join(time.Minute))
	request := event.JoinKey(joiner)
	at, err := host.Append(t.Context(), request, bus.Position{}, []byte("request"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := host.Append(t.Context(), request, bus.Position{}, []byte("request")); err != nil || again != at {
		t.Errorf("a repeated request: %v, %v", again, err)
	}
	var conflict *bus.ConflictError
	if _, err := host.Append(t.Context(), request, bus.Position{}, []byte("another")); !errors.As(err, &conflict) {
		t.Errorf("another request: %v", err)
	}
	if got, _ := held(t, host, request, bus.Position{}); !slices.Equal(got, []string{request}) {
		t.Errorf("the request: %v", got)
	}
	if got, _ := held(t, host, event.MemberKey("web", joiner), bus.Position{}); len(got) != 0 {
		t.Errorf("the member to be: %v", got)
	}
	if _, err := host.Get(t.Context(), event.MemberKey("web", joiner)); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the member to be: %v", err)
	}
}

// TestDenialsAreSaid: the server does not answer what it does not allow.
func TestDenialsAreSaid(t *testing.T) {
	f := startFleet(t)
	replica := f.use(t, "replica", f.replica("web", web1))
	try := func(what string, do func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := do(ctx); err == nil || what != "follow" && !strings.Contains(err.Error(), "these credentials do not allow it") {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("get", func(ctx context.Context) error { _, err := replica.Get(ctx, "state/a"); return err })
	try("append", func(ctx context.Context) error {
		_, err := replica.Append(ctx, "group/web/a", bus.Position{}, []byte("forged"))
		return err
	})
	try("follow", func(ctx context.Context) error {
		for _, err := range replica.Follow(ctx, "state", bus.Position{}) {
			return err
		}
		return nil
	})
}

// TestTheRevokedAreCutOff: the connection ends at once, and what is appended
// from then on does not reach them, nor after a restart.
func TestTheRevokedAreCutOff(t *testing.T) {
	f := startFleet(t)
	manager := f.use(t, "manager", f.manager("red"))
	replica, other := f.use(t, "replica", f.replica("web", web1)), f.use(t, "other", f.replica("web", web2))
	var ended error
	var got []string
	for u, err := range replica.Follow(t.Context(), "group/web", bus.Position{}) {
		if err != nil {
			ended = err
			break
		}
		got = append(got, u.Key)
		if !u.CaughtUp {
			continue
		}
		if err := f.server.Revoke("default", []string{f.users["replica"]}); err != nil {
			t.Fatal(err)
		}
		if _, err := manager.Append(t.Context(), "group/web/a", bus.Position{}, []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	if ended == nil || !slices.Equal(got, []string{""}) {
		t.Fatalf("a revoked replica got %q and ended with %v", got, ended)
	}
	for range 2 {
		for err := replica.Check(); !errors.Is(err, nats.ErrAuthorization); err = replica.Check() {
			if t.Context().Err() != nil {
				t.Fatalf("a revoked replica: %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		if got, _ := held(t, other, "group/web", bus.Position{}); len(got) != 1 {
			t.Errorf("the other replica has %v", got)
		}
		f.server.Shutdown()
		f.start(t)
		for other.Check() != nil {
			time.Sleep(time.Millisecond)
		}
	}
	if err := f.server.Revoke("default", []string{"SUAM"}); err == nil {
		t.Error("revoked what is no user")
	}
	// Those who were revoked stay so when others are.
	if err := f.server.Revoke("default", []string{f.users["other"]}); err != nil {
		t.Fatal(err)
	}
	fresh := f.connect(t, bus.Options{Creds: "replica.creds", Tenant: "red"})
	if err := fresh.Connected(t.Context()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("who was revoked first: %v", err)
	}
}

// TestTooManyRevocations are refused, and the server starts again.
func TestTooManyRevocations(t *testing.T) {
	f := startFleet(t)
	users := make([]string, 12_000)
	for i := range users {
		key := [32]byte{31: 7} // not one of small order
		binary.BigEndian.PutUint64(key[:], uint64(i))
		user, err := nkeys.Encode(nkeys.PrefixByteUser, key[:])
		if err != nil {
			t.Fatal(err)
		}
		users[i] = string(user)
	}
	if err := f.server.Revoke("default", users); err == nil || !strings.Contains(err.Error(), "12000 users") {
		t.Errorf("all: %v", err)
	}
	for range 2 {
		f.server.Shutdown()
		f.start(t)
		if err := f.server.Revoke("default", users[:11_000]); err != nil {
			t.Error(err)
		}
	}
}

// TestOthersAreRevoked: the server takes everybody's ways to the log out for a moment, and
// nobody fails for that.
func TestOthersAreRevoked(t *testing.T) {
	f := startFleet(t)
	manager := f.use(t, "manager", f.manager("red")).(*jetstream.Log)
	replica := f.use(t, "replica", f.replica("web", web1))
	if err := replica.Connected(t.Context()); err != nil {
		t.Fatal(err)
	}
	revoked := make(chan error, 1)
	go func() {
		var errs []error
		for range 50 {
			key, err := nkeys.CreateUser()
			if err == nil {
				var user string
				if user, err = key.PublicKey(); err == nil {
					err = manager.Revoke(t.Context(), []string{user})
				}
			}
			errs = append(errs, err)
		}
		revoked <- errors.Join(errs...)
	}()
	for {
		for who, l := range map[string]bus.Conn{"a manager": manager, "a replica": replica} {
			if _, err := l.Get(t.Context(), event.ManagersKey); !errors.Is(err, bus.ErrNotFound) {
				t.Fatalf("%s reads: %v", who, err)
			}
		}
		select {
		case err := <-revoked:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// TestOneFollowOfAScope: a user whose consumers have names of their own can have
// one of a scope. The later Follow has it, and the earlier is told.
func TestOneFollowOfAScope(t *testing.T) {
	f := startFleet(t)
	manager := f.use(t, "manager", f.manager("red"))
	replica := f.use(t, "replica", f.replica("web", web1))
	first := make(chan error, 1)
	caughtUp := make(chan struct{})
	go func() {
		var last error
		for u, err := range replica.Follow(t.Context(), "group/web", bus.Position{}) {
			if last = err; u.CaughtUp {
				close(caughtUp)
			}
		}
		first <- last
	}()
	<-caughtUp
	for u, err := range replica.Follow(t.Context(), "group/web", bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			if err := <-first; err == nil || !strings.Contains(err.Error(), "one Follow of a scope at a time") {
				t.Errorf("the earlier Follow ended with %v", err)
			}
			if _, err := manager.Append(t.Context(), "group/web/a", bus.Position{}, []byte("a")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if u.Key != "group/web/a" {
			t.Errorf("got %q", u.Key)
		}
		break
	}
	// Another scope is another consumer.
	if got, _ := held(t, replica, event.ManagersKey, bus.Position{}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestStreams: what lets nothing go that is on them, and which one waits for the
// disk. The server syncs always (Config says so to it), but for a stream whose
// persist mode is async: see jsStream's setup in stream.go of nats-server 2.15.
func TestStreams(t *testing.T) {
	f := startFleet(t)
	manager := f.login(t, "manager", f.manager("red"))
	for stream, mode := range map[string]string{"KEYTURN_red": "", "KEYTURN_red_BOARD": "async"} {
		outcome, answer := manager.request("$JS.API.STREAM.INFO."+stream, "")
		var info struct {
			Config struct {
				Storage     string
				PersistMode string `json:"persist_mode"`
				MaxPer      int    `json:"max_msgs_per_subject"`
				DenyDelete  bool   `json:"deny_delete"`
				DenyPurge   bool   `json:"deny_purge"`
			}
		}
		if err := json.Unmarshal(answer, &info); outcome != done || err != nil {
			t.Fatal(outcome, err)
		}
		if c := info.Config; c.Storage != "file" || c.PersistMode != mode || c.MaxPer != 1 || !c.DenyDelete || !c.DenyPurge {
			t.Errorf("%s: %+v", stream, c)
		}
	}
}
