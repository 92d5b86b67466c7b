// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/bus/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A plainServer is a NATS server as others run it: a password instead of
// credentials, and the defaults otherwise.
type plainServer struct {
	dir  string
	port int
	s    *server.Server
}

func startPlain(t *testing.T) *plainServer {
	t.Helper()
	p := &plainServer{dir: t.TempDir(), port: server.RANDOM_PORT}
	p.start(t)
	t.Cleanup(p.stop)
	return p
}

func (p *plainServer) start(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: p.port, Username: "manager", Password: "secret", NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: p.dir, DisableJetStreamBanner: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("NATS does not start")
	}
	p.s, p.port = s, s.Addr().(*net.TCPAddr).Port
}

func (p *plainServer) stop() {
	p.s.Shutdown()
	p.s.WaitForShutdown()
}

func (p *plainServer) url() string {
	u := url.URL{Scheme: "nats", User: url.UserPassword("manager", "secret"), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port))}
	return u.String()
}

func connect(t *testing.T, o jetstream.Options) *jetstream.Log {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	l, err := jetstream.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func (p *plainServer) open(t *testing.T) bus.Log {
	t.Helper()
	l := connect(t, jetstream.Options{URL: p.url()})
	if _, err := l.Create(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestConformance runs the suite over the URL of a server that is not ours.
func TestConformance(t *testing.T) {
	engine := func(t *testing.T) bustest.Engine {
		p := startPlain(t)
		return bustest.Engine{
			Open:  p.open,
			Other: func(t *testing.T) bus.Log { return startPlain(t).open(t) },
			Restart: func(t *testing.T) {
				p.stop()
				p.start(t)
			},
		}
	}
	bustest.Run(t, engine)
	t.Run("Board", func(t *testing.T) { bustest.RunBoard(t, engine) })
}

func TestTenantsStayApart(t *testing.T) {
	p := startPlain(t)
	var logs []*jetstream.Log
	for _, tenant := range []string{"red", "blue"} {
		l := connect(t, jetstream.Options{URL: p.url(), Tenant: tenant})
		if _, err := l.Create(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), "state/a", bus.Position{}, []byte(tenant)); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	for i, tenant := range []string{"red", "blue"} {
		e, err := logs[i].Get(t.Context(), "state/a")
		if err != nil || string(e.Data) != tenant {
			t.Errorf("%s reads %q, %v", tenant, e.Data, err)
		}
	}
}

// TestAForeignStream is one of the right name that keyturn did not make.
func TestAForeignStream(t *testing.T) {
	p := startPlain(t)
	nc, err := nats.Connect(p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "KEYTURN_default", Subjects: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	l := connect(t, jetstream.Options{URL: p.url()})
	if _, err := l.Create(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "not a keyturn log") {
		t.Errorf("a foreign stream: %v", err)
	}
}

// TestFollowEndsWithTheServer, soon and with a reason; and a Log that is asked
// meanwhile says that it is not connected, and works when the server is back.
func TestFollowEndsWithTheServer(t *testing.T) {
	p := startPlain(t)
	l := p.open(t).(*jetstream.Log)
	var last error
	for u, err := range l.Follow(t.Context(), "state", bus.Position{}) {
		if u.CaughtUp {
			p.stop()
		}
		last = err
	}
	if last == nil {
		t.Fatal("the server is gone, and Follow ended without an error")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := l.Get(ctx, "state/a"); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("Get without a server: %v", err)
	}
	if _, err := l.Append(ctx, "state/a", bus.Position{}, nil); err == nil {
		t.Error("Append without a server")
	}
	if l.Check() == nil {
		t.Error("Check without a server")
	}
	p.start(t)
	for {
		if _, err := l.Append(t.Context(), "state/a", bus.Position{}, []byte("back")); err == nil {
			return
		} else if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestStrayMessages stand in the stream and are no entries: those who follow are
// told of the others.
func TestStrayMessages(t *testing.T) {
	p := startPlain(t)
	l := p.open(t).(*jetstream.Log)
	nc, err := nats.Connect(p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KEYTURN_default")
	if err != nil {
		t.Fatal(err)
	}
	written := strings.TrimSuffix(stream.CachedInfo().Config.Subjects[0], ">")
	stray := func(subject string, size int) {
		t.Helper()
		if _, err := js.Publish(t.Context(), written+subject, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	stray("group.web.hello", 1)
	stray("group.web.ä._", 1)
	stray("group.web.big._", bus.MaxData+1)
	want, err := l.Append(t.Context(), "group/web/a", bus.Position{}, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	stray("group.web.last", 1)
	var got []bus.Update
	for u, err := range l.Follow(t.Context(), "group/web", bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, u)
		if u.CaughtUp {
			break
		}
	}
	if len(got) != 2 || got[0].Key != "group/web/a" || got[0].Position != want || !got[1].CaughtUp {
		t.Errorf("%+v", got)
	}
	if _, err := l.Get(t.Context(), "group/web/big"); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("an entry that is too large: %v", err)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nats://h:1":                         "nats://h:1",
		"nats://user:pw@h:1":                 "nats://xxxxx@h:1",
		"nats://token@h:1":                   "nats://xxxxx@h:1",
		"nats://a:b@h:1, tls://c@i:2,nats:x": "nats://xxxxx@h:1,tls://xxxxx@i:2,nats:x",
		"nats://a:b@h:1\x7f":                 "[malformed URL]",
	} {
		if got := jetstream.Redact(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestConnectReturnsWithoutAServer(t *testing.T) {
	l := connect(t, jetstream.Options{URL: "nats://127.0.0.1:1"})
	if err := l.Connected(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nothing listens, and Connected says %v", err)
	}
	p := startPlain(t)
	bad := connect(t, jetstream.Options{URL: strings.Replace(p.url(), "secret", "wrong", 1)})
	if err := bad.Connected(t.Context()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a wrong password: %v", err)
	}
	if err := bad.Check(); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("the password is in the error: %v", err)
	}
}
