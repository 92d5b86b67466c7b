// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
)

// TestStreamsOfBefore are made ones whose entries are republished, and stay the
// same logs with the same entries.
func TestStreamsOfBefore(t *testing.T) {
	p := startPlain(t)
	l := connect(t, jetstream.Options{URL: p.url()})
	id, err := l.Create(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	at, err := l.Append(t.Context(), "state/a", bus.Position{}, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	told := func() string {
		msg, err := nc.Request("$JS.API.DIRECT.GET.KEYTURN_default.keyturn.default.id.log", nil, nats.DefaultTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if string(msg.Data) != id {
			t.Errorf("the id is %q, want %q", msg.Data, id)
		}
		return msg.Header.Get("Keyturn-News")
	}
	if news := told(); news != "ktnews.default.log." {
		t.Errorf("of a new stream it is told that its news are heard at %q", news)
	}
	for _, name := range []string{"KEYTURN_default", "KEYTURN_default_BOARD"} {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		config := s.CachedInfo().Config
		if r := config.RePublish; r == nil || !strings.HasPrefix(r.Destination, "ktnews.default.") {
			t.Errorf("%s is made with %+v", name, r)
		}
		config.RePublish = nil
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if again, err := connect(t, jetstream.Options{URL: p.url()}).Create(t.Context(), id); err != nil || again != id {
			t.Fatalf("%s, %v", again, err)
		}
		if news := told(); news != "ktnews.default.log." {
			t.Errorf("its news are heard at %q", news)
		}
	}
	heard, err := nc.SubscribeSync("ktnews.default.log.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil { // the entry comes over another connection
		t.Fatal(err)
	}
	next, err := l.Append(t.Context(), "state/a", at, []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := heard.NextMsgWithContext(t.Context())
	if err != nil || string(msg.Data) != "b" || msg.Subject != "ktnews.default.log.state.a._" || next.Log != id {
		t.Errorf("%+v, %v, %v", msg, next, err)
	}
}
