// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// A following is a Follow that is taken from update by update.
type following struct {
	t    *testing.T
	next func() (bus.Update, error, bool)
}

// A source is a log or a board.
type source interface {
	Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error]
}

func follow(t *testing.T, l source, scope string, from bus.Position) *following {
	t.Helper()
	next, stop := iter.Pull2(l.Follow(t.Context(), scope, from))
	t.Cleanup(stop)
	return &following{t, next}
}

// want takes updates, "KEY=DATA" or "caught up", and returns where the last stands.
func (f *following) want(what ...string) (last bus.Position) {
	f.t.Helper()
	for _, want := range what {
		u, err, ok := f.next()
		got := u.Key + "=" + string(u.Data)
		if u.CaughtUp {
			got = "caught up"
		}
		if err != nil || !ok || got != want {
			f.t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		last = u.Position
	}
	return last
}

// ended returns what the Follow ended with.
func (f *following) ended() error {
	f.t.Helper()
	u, err, ok := f.next()
	if err == nil {
		f.t.Fatalf("got %q=%q at %v, %v; want an error", u.Key, u.Data, u.Position, ok)
	}
	return err
}

// put appends an entry, or replaces the newest.
func put(t *testing.T, l bus.Log, key, data string) bus.Position {
	t.Helper()
	old, err := l.Get(t.Context(), key)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		t.Fatal(err)
	}
	at, err := l.Append(t.Context(), key, old.Position, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// admin connects as one who may do everything in the account.
func (f *fleet) admin(t *testing.T) (*nats.Conn, natsjs.JetStream) {
	t.Helper()
	seed, account, _ := bytes.Cut(f.server.Secret("default"), []byte(" "))
	nc, err := nats.Connect(f.server.URL(), f.as(t, seed, string(account), func(*jwt.UserClaims) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func (f *fleet) as(t *testing.T, signing []byte, account string, with func(*jwt.UserClaims)) nats.Option {
	t.Helper()
	token, seed := f.grant(t, "by hand", func(user string) (string, error) {
		key, err := nkeys.FromSeed(signing)
		if err != nil {
			return "", err
		}
		claims := jwt.NewUserClaims(user)
		claims.IssuerAccount = account
		with(claims)
		return claims.Encode(key)
	})
	return nats.UserJWTAndSeed(token, string(seed))
}

// wantConsumers waits until a stream has as many consumers as it should have: one that
// somebody caught up by goes away when nobody has listened to it for a while.
func wantConsumers(t *testing.T, js natsjs.JetStream, stream string, want int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		n := s.CachedInfo().State.Consumers
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("stream %s has %d consumers, want %d", stream, n, want)
			return
		}
	}
}

// reconfigure changes the log's stream.
func reconfigure(t *testing.T, js natsjs.JetStream, change func(*natsjs.StreamConfig)) {
	t.Helper()
	s, err := js.Stream(t.Context(), "KEYTURN_red")
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	change(&c)
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// TestLive: who is current hears what is new, and costs the server no consumer.
func TestLive(t *testing.T) {
	f := startFleet(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", web1))
	_, js := f.admin(t)
	put(t, manager, "group/web/a", "1")
	put(t, manager, event.ManagersKey, "1")
	if err := manager.Board().Put(t.Context(), "beacon/web", []byte("1")); err != nil {
		t.Fatal(err)
	}
	group, managers := follow(t, replica, "group/web", bus.Position{}), follow(t, replica, event.ManagersKey, bus.Position{})
	challenges, beacon := follow(t, replica, "challenge/web", bus.Position{}), follow(t, replica.Board(), "beacon/web", bus.Position{})
	group.want("group/web/a=1", "caught up")
	managers.want(event.ManagersKey+"=1", "caught up")
	challenges.want("caught up")
	beacon.want("beacon/web=1", "caught up")
	for _, stream := range []string{"KEYTURN_red", "KEYTURN_red_BOARD"} {
		wantConsumers(t, js, stream, 0)
	}
	put(t, manager, "group/api/a", "of others")
	b := put(t, manager, "group/web/b", "2")
	put(t, manager, "group/web/a", "3")
	put(t, manager, event.ManagersKey, "2")
	put(t, manager, "challenge/web", "1")
	if err := manager.Board().Put(t.Context(), "beacon/web", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if at := group.want("group/web/b=2"); at != b {
		t.Errorf("heard at %v what was appended at %v", at, b)
	}
	last := group.want("group/web/a=3")
	managers.want(event.ManagersKey + "=2")
	challenges.want("challenge/web=1")
	beacon.want("beacon/web=2")

	// From where somebody was.
	again := f.connect(t, bus.Options{Creds: "replica.creds", Tenant: "red"})
	follow(t, again, "group/web", b).want("group/web/a=3", "caught up")
	next := follow(t, again, "challenge/web", bus.Position{})
	next.want("challenge/web=1", "caught up")
	current := follow(t, again, event.ManagersKey, last)
	current.want(event.ManagersKey+"=2", "caught up")
	put(t, manager, event.ManagersKey, "3")
	current.want(event.ManagersKey + "=3")
	if err := follow(t, again, "group/web", bus.Position{Log: last.Log, Seq: last.Seq + 1000}).ended(); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("from above the head: %v", err)
	}
	if err := follow(t, again, "challenge/web", bus.Position{Log: "another", Seq: 1}).ended(); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("from another log: %v", err)
	}
	follow(t, again.Board(), "beacon/web", bus.Position{Log: "another", Seq: 1}).want("beacon/web=2", "caught up")
}

// TestCredentialsOfBefore allow consumers, and not to listen.
func TestCredentialsOfBefore(t *testing.T) {
	f := startFleet(t)
	manager := f.use(t, "manager", f.manager("red"))
	_, js := f.admin(t)
	seed, account, _ := bytes.Cut(f.server.Secret("default"), []byte(" "))
	signing, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	replica := f.use(t, "replica", func(user string) (string, error) {
		c := jwt.NewUserClaims(user)
		c.IssuerAccount = string(account)
		c.Tags.Add("consumer:" + strings.ToLower(user))
		c.Sub.Allow.Add("_INBOX_" + user + ".>")
		c.Pub.Allow.Add("$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.id.log")
		for _, scope := range []string{"group/web", "conf/managers"} {
			name := consumerName(user, "KEYTURN_red", scope)
			c.Pub.Allow.Add("$JS.FC.KEYTURN_red." + name + ".>")
			for _, n := range []string{name, name + "-look"} {
				c.Pub.Allow.Add("$JS.API.CONSUMER.DELETE.KEYTURN_red."+n,
					"$JS.API.CONSUMER.CREATE.KEYTURN_red."+n+".keyturn.red."+strings.ReplaceAll(scope, "/", ".")+".>")
			}
		}
		return c.Encode(signing)
	})
	at := put(t, manager, "group/web/a", "1")
	group, managers := follow(t, replica, "group/web", bus.Position{}), follow(t, replica, event.ManagersKey, bus.Position{})
	group.want("group/web/a=1", "caught up")
	managers.want("caught up")
	wantConsumers(t, js, "KEYTURN_red", 2)
	put(t, manager, "group/web/b", "2")
	put(t, manager, event.ManagersKey, "1")
	group.want("group/web/b=2")
	managers.want(event.ManagersKey + "=1")
	if err := follow(t, replica, "group/web", bus.Position{Log: at.Log, Seq: at.Seq + 1000}).ended(); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("from above the head: %v", err)
	}
}

// TestMuchMissed comes as little does, in order and once, to somebody who is gone for
// long.
func TestMuchMissed(t *testing.T) {
	f := startFleet(t)
	manager := f.use(t, "manager", f.manager("red"))
	at := put(t, manager, "group/web/a", "1")
	var want []string
	for i := range 2500 {
		key, value := fmt.Sprint("group/web/", i), fmt.Sprint(i)
		put(t, manager, key, value)
		want = append(want, key+"="+value)
	}
	for _, who := range []bus.Conn{f.use(t, "replica", f.replica("web", web1)), manager} {
		group := follow(t, who, "group/web", at)
		group.want(append(want, "caught up")...)
	}
}

// TestStreamsThatTellNothing of what is new are followed by a consumer, and single
// keys are read again and again.
func TestStreamsThatTellNothing(t *testing.T) {
	f := startFleet(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", web1))
	_, js := f.admin(t)
	reconfigure(t, js, func(c *natsjs.StreamConfig) { c.RePublish = nil })
	if _, err := manager.(interface {
		Create(ctx context.Context, known string) (string, error)
	}).Create(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	group, managers := follow(t, replica, "group/web", bus.Position{}), follow(t, replica, event.ManagersKey, bus.Position{})
	group.want("caught up")
	managers.want("caught up")
	wantConsumers(t, js, "KEYTURN_red", 1)
	put(t, manager, "group/web/a", "1")
	put(t, manager, event.ManagersKey, "1")
	group.want("group/web/a=1")
	managers.want(event.ManagersKey + "=1")
}

// TestNothingHeardIsBelieved that the server did not say of itself.
func TestNothingHeardIsBelieved(t *testing.T) {
	f := startFleet(t)
	all := f.everybody(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", "AAAAAAAAAAU"))
	put(t, manager, event.ManagersKey, "1")
	put(t, manager, "group/web/a", "1")
	group, managers := follow(t, replica, "group/web", bus.Position{}), follow(t, replica, event.ManagersKey, bus.Position{})
	group.want("group/web/a=1", "caught up")
	managers.want(event.ManagersKey+"=1", "caught up")

	targets := []string{heard("log", "group/web/x"), heard("log", "group/web/a"), heard("log", "conf/managers")}
	forged := func(subject string) string {
		return "NATS/1.0\r\nNats-Stream: KEYTURN_red\r\nNats-Subject: keyturn.red." + subject + "\r\nNats-Sequence: 4000\r\n\r\n"
	}
	j := all["J"]
	for _, subject := range []string{"group.web.x._", "group.web.a._", "conf.managers._"} {
		for _, target := range targets {
			for who, w := range all {
				if outcome := w.publishHeaders(target, "", forged(subject), "forged"); outcome != denied {
					t.Errorf("%s may publish at %s: %s", who, target, outcome)
				}
				w.publish("$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.id.log", target, "")
			}
			// What he may write, he gives headers, and has it delivered there.
			if outcome := j.publishHeaders("ktput.red.log.open.join."+joiner+"._", target, forged(subject), "forged"); outcome != done {
				t.Fatal(outcome)
			}
			j.publish("$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.join."+joiner+"._", target, "")
			name := consumerName(j.user, "KEYTURN_red", "join/"+joiner)
			filter := "keyturn.red.join." + joiner + ".>"
			body := strings.Replace(j.consumer("KEYTURN_red", name, filter), "_INBOX_"+j.user+".deliver", target, 1)
			j.request("$JS.API.CONSUMER.DELETE.KEYTURN_red."+name, "")
			if outcome, answer := j.request("$JS.API.CONSUMER.CREATE.KEYTURN_red."+name+"."+filter, body); outcome != done {
				t.Fatalf("%s: %s", outcome, answer)
			}
			// A true answer, to where it is no news.
			all["R"].publish("$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.conf.managers._", target, "")
			name = consumerName(all["S"].user, "KEYTURN_red", "group/web")
			body = strings.Replace(all["S"].consumer("KEYTURN_red", name, "keyturn.red.group.web.>"), "_INBOX_"+all["S"].user+".deliver", target, 1)
			all["S"].request("$JS.API.CONSUMER.DELETE.KEYTURN_red."+name, "")
			if outcome, answer := all["S"].request("$JS.API.CONSUMER.CREATE.KEYTURN_red."+name+".keyturn.red.group.web.>", body); outcome != done {
				t.Fatalf("%s: %s", outcome, answer)
			}
		}
	}
	a, m := put(t, manager, "group/web/a", "2"), put(t, manager, event.ManagersKey, "2")
	if at := group.want("group/web/a=2"); at != a {
		t.Errorf("group/web is at %v, want %v", at, a)
	}
	if at := managers.want(event.ManagersKey + "=2"); at != m {
		t.Errorf("conf/managers is at %v, want %v", at, m)
	}
}

// oddNews says something of an entry that was, as nobody may who has not all
// rights: a reason to look.
func oddNews(t *testing.T, nc *nats.Conn, key string, seq uint64) {
	t.Helper()
	msg := nats.NewMsg(heard("log", key))
	msg.Header.Set("Nats-Stream", "KEYTURN_red")
	msg.Header.Set("Nats-Subject", "keyturn.red."+strings.ReplaceAll(key, "/", ".")+"._")
	msg.Header.Set("Nats-Sequence", fmt.Sprint(seq))
	if err := errors.Join(nc.PublishMsg(msg), nc.Flush()); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasNotHeard comes when it is looked for.
func TestWhatWasNotHeard(t *testing.T) {
	f := startFleet(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", web1))
	nc, js := f.admin(t)
	put(t, manager, "group/web/a", "1")
	group, managers := follow(t, replica, "group/web", bus.Position{}), follow(t, replica, event.ManagersKey, bus.Position{})
	group.want("group/web/a=1", "caught up")
	managers.want("caught up")
	var republish *natsjs.RePublish
	reconfigure(t, js, func(c *natsjs.StreamConfig) { republish, c.RePublish = c.RePublish, nil })
	missed := put(t, manager, "group/web/b", "missed")
	put(t, manager, event.ManagersKey, "missed")
	reconfigure(t, js, func(c *natsjs.StreamConfig) { c.RePublish = republish })
	put(t, manager, "group/web/c", "heard")
	group.want("group/web/c=heard")
	oddNews(t, nc, "group/web/a", 1)
	oddNews(t, nc, event.ManagersKey, 0)
	if at := group.want("group/web/b=missed"); at != missed {
		t.Errorf("it stands at %v, want %v", at, missed)
	}
	managers.want(event.ManagersKey + "=missed")
	put(t, manager, "group/web/b", "new")
	group.want("group/web/b=new")
	wantConsumers(t, js, "KEYTURN_red", 0)
}

// TestAForgedPlace would hide what comes below it, and is found out by looking.
func TestAForgedPlace(t *testing.T) {
	f := startFleet(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", web1))
	nc, _ := f.admin(t)
	for _, scope := range []string{"group/web", event.ManagersKey} {
		key := scope
		if scope == "group/web" {
			key = "group/web/a"
		}
		put(t, manager, key, "1")
		l := follow(t, replica, scope, bus.Position{})
		l.want(key+"=1", "caught up")
		oddNews(t, nc, key, 1_000_000)
		l.want(key + "=")
		put(t, manager, key, "2")
		l.want(key + "=2")
		if err := l.ended(); !errors.Is(err, bus.ErrPosition) {
			t.Errorf("%s ended with %v", scope, err)
		}
	}
}

// TestTheStreamWasReplaced under those who are current.
func TestTheStreamWasReplaced(t *testing.T) {
	f := startFleet(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", web1))
	_, js := f.admin(t)
	for i := range 10 {
		put(t, manager, "group/web/a", fmt.Sprint(i))
	}
	group := follow(t, replica, "group/web", bus.Position{})
	last := group.want("group/web/a=9", "caught up")
	if err := js.DeleteStream(t.Context(), "KEYTURN_red"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.server.Create(t.Context(), "red", ""); err != nil {
		t.Fatal(err)
	}
	another := f.connect(t, bus.Options{Creds: "manager.creds", Tenant: "red"})
	put(t, another, "group/web/b", "new")
	if err := group.ended(); err == nil {
		t.Error("it goes on")
	}
	if err := follow(t, replica, "group/web", last).ended(); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("following another stream from there: %v", err)
	}
	follow(t, replica, "group/web", bus.Position{}).want("group/web/b=new", "caught up")
}

// TestTooMuchNews ends Follow, and whoever follows again from where he is has all.
func TestTooMuchNews(t *testing.T) {
	f := startFleet(t)
	manager, replica := f.use(t, "manager", f.manager("red")), f.use(t, "replica", f.replica("web", web1))
	group := follow(t, replica, "group/web", bus.Position{})
	group.want("caught up")
	const many = 1500
	var want, got []string
	for i := range many {
		key := fmt.Sprintf("group/web/k%04d", i)
		if _, err := manager.Append(t.Context(), key, bus.Position{}, []byte("x")); err != nil {
			t.Fatal(err)
		}
		want = append(want, key)
	}
	var at bus.Position
	for {
		u, err, _ := group.next()
		if err != nil {
			if !strings.Contains(err.Error(), "a message is missing") {
				t.Fatal(err)
			}
			break
		}
		got, at = append(got, u.Key), u.Position
	}
	if len(got) == many {
		t.Fatal("nothing was too much")
	}
	for u, err := range replica.Follow(t.Context(), "group/web", at) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			break
		}
		got = append(got, u.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d entries came, want %d", len(got), many)
	}
}
