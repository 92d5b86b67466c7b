// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/internal/natsserver"
)

// durability is what a manager reads back.
func durability(t *testing.T, url, creds, monitor string) *bus.Durability {
	t.Helper()
	d, err := connect(t, jetstream.Options{URL: url, Creds: creds, Monitor: monitor}).Durability(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// reasons are those for which durability is reduced.
func reasons(d *bus.Durability) []string {
	all := []string{}
	for _, r := range d.Reduced {
		if r.Why == "" || r.Do == "" || !strings.HasPrefix(r.String(), "reduced durability: ") {
			panic("a reason that says nothing: " + r.Reason)
		}
		if !slices.Contains(all, r.Reason) {
			all = append(all, r.Reason)
		}
	}
	return all
}

func wantReasons(t *testing.T, what string, d *bus.Durability, want ...string) {
	t.Helper()
	if got := reasons(d); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("%s: reduced for %q, want %q: %+v", what, got, want, d)
	}
}

// TestDurabilityOfOneServer is read back in every way there is.
func TestDurabilityOfOneServer(t *testing.T) {
	for sync, want := range map[string]string{"always": "", "10s": bus.ReducedSync, "default": bus.ReducedSync} {
		s := natsserver.Start(t, natsserver.Options{SyncInterval: sync})
		if _, err := connect(t, jetstream.Options{URL: s.URL, Creds: s.Trust.Admin}).Init(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		creds := s.Trust.Manager(t, "default")
		for _, monitor := range []string{s.Monitoring, s.Trust.Monitor} {
			d := durability(t, s.URL, creds, monitor)
			if want == "" {
				wantReasons(t, sync, d)
			} else {
				wantReasons(t, sync, d, want)
			}
			if d.Cluster != "" || len(d.Servers) != 1 || d.Servers[0].Name != s.Name || len(d.Streams) != 2 || d.Streams[0].Replicas != 1 {
				t.Errorf("%s: %+v", sync, d)
			}
		}
		for _, monitor := range []string{"", "http://127.0.0.1:1", s.Trust.Admin, s.Trust.Monitor + ".none"} {
			wantReasons(t, "asked at "+monitor, durability(t, s.URL, creds, monitor), bus.ReducedSyncUnknown)
		}
	}
}

// TestMonitorReadsNothingElse: the credentials that say how the servers write to the
// disk are good for that alone.
func TestMonitorReadsNothingElse(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	denied := make(chan error, 1)
	nc, err := nats.Connect(s.URL, nats.UserCredentials(s.Trust.Monitor), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{"$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !strings.Contains(err.Error(), subject) {
			t.Error(err)
		}
	}
}

// TestDurabilityOfACluster has a stream of one copy raised to three, and one of the
// servers killed.
func TestDurabilityOfACluster(t *testing.T) {
	c := natsserver.StartCluster(t, natsserver.Options{})
	admin := connect(t, jetstream.Options{URL: c.URL(), Creds: c.Trust.Admin})
	first, err := admin.Init(t.Context(), 1)
	if err != nil || !first.Made || first.Raised || first.Replicas != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	creds := c.Trust.Manager(t, "default")
	at, err := connect(t, jetstream.Options{URL: c.URL(), Creds: creds}).Append(t.Context(), "state/a", bus.Position{}, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	wantReasons(t, "one copy", durability(t, c.URL(), creds, c.Trust.Monitor), bus.ReducedReplicas)

	second, err := admin.Init(t.Context(), 0)
	if err != nil || second.Made || !second.Raised || second.Replicas != 3 || second.ID != first.ID {
		t.Fatalf("%+v, %v", second, err)
	}
	if again, err := admin.Init(t.Context(), 3); err != nil || again.Made || again.Raised {
		t.Fatalf("%+v, %v", again, err)
	}
	l := connect(t, jetstream.Options{URL: c.URL(), Creds: creds})
	if e, err := l.Get(t.Context(), "state/a"); err != nil || e.Position != at {
		t.Errorf("after it was raised: %+v, %v", e, err)
	}
	if err := l.Board().Put(t.Context(), "beacon/web", []byte("b")); err != nil {
		t.Error(err)
	}
	var monitoring []string
	for _, s := range c.Nodes {
		monitoring = append(monitoring, s.Monitoring)
	}
	for _, monitor := range []string{c.Trust.Monitor, strings.Join(monitoring, ",")} {
		d := durability(t, c.URL(), creds, monitor)
		wantReasons(t, "three copies", d)
		if d.Cluster != "keyturn" || len(d.Servers) != 3 || d.Log != first.ID || d.Head == 0 {
			t.Errorf("%+v", d)
		}
	}
	wantReasons(t, "two of three asked", durability(t, c.URL(), creds, strings.Join(monitoring[:2], ",")), bus.ReducedSyncUnknown)

	c.Leader(t, "KEYTURN_default").Kill(t)
	for {
		d, err := l.Durability(t.Context())
		if err == nil && slices.Contains(reasons(d), bus.ReducedCopies) {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("a server is gone, and durability is %+v, %v", d, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestInitWithoutServers asks for more copies than there are servers.
func TestInitWithoutServers(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	l := connect(t, jetstream.Options{URL: s.URL, Creds: s.Trust.Admin})
	var api *natsjs.APIError
	if r, err := l.Init(t.Context(), 3); err == nil {
		t.Errorf("three copies on one server: %+v", r)
	} else if !errors.As(err, &api) {
		t.Error(err)
	}
	if r, err := l.Init(t.Context(), 0); err != nil || r.Replicas != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := l.Init(t.Context(), 3); err == nil {
		t.Errorf("raised to three copies on one server: %+v", r)
	}
	if err := jetstream.CheckMonitor("http://a:1, https://b"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"nats://a:1", "http://", "http://user:secret@a", "http://a,x://"} {
		if err := jetstream.CheckMonitor(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestCount counts keys as a manager may, and not how often they were written, nor
// those of others.
func TestCount(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	openLog, _ := tenant(t, s.URL, s.Trust)
	openOther, _ := tenant(t, s.URL, s.Trust)
	l, ok := openLog(t).(bus.Counter)
	if !ok {
		t.Fatal("it does not count")
	}
	put := func(l bus.Log, key, data string, after bus.Position) bus.Position {
		t.Helper()
		at, err := l.Append(t.Context(), key, after, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	put(openOther(t), "state/a", "a", bus.Position{})
	put(l, "state/a", "2", put(l, "state/a", "1", bus.Position{}))
	for _, key := range []string{"state/b", "group/web/a", "group/api/a", "conf/log", "stated"} {
		put(l, key, "x", bus.Position{})
	}
	got, err := l.Count(t.Context(), []string{"state", "group", "conf", "join"})
	if want := map[string]uint64{"state": 2, "group": 2, "conf": 1, "join": 0}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	s.Kill(t)
	if got, err := l.Count(t.Context(), []string{"state"}); err == nil {
		t.Errorf("a server that is gone has %v", got)
	}
}
