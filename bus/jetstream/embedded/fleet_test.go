// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
)

// Ids of those who have joined, or want to.
const (
	web1, web2 = "AAAAAAAAAAE", "AAAAAAAAAAI"
	api1       = "AAAAAAAAAAM"
	joiner     = "AAAAAAAAAAQ"
)

// A fleet is a bus with everybody on it.
type fleet struct {
	*engine
	mint *jetstream.Mint
	addr string
	// users are the public keys of those who were granted something, and words the
	// secret ones of tenant red.
	users map[string]string
	words map[string]string
}

func startFleet(t *testing.T) *fleet {
	t.Helper()
	e := start(t, t.TempDir())
	for _, tenant := range []string{"red", "blue"} {
		if _, err := e.server.Create(t.Context(), tenant, ""); err != nil {
			t.Fatal(err)
		}
	}
	mint, err := jetstream.NewMint(e.server.Secret("default"))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(e.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{engine: e, mint: mint, addr: u.Host, users: make(map[string]string)}
}

// grant makes a user, under a name, and has him granted something.
func (f *fleet) grant(t *testing.T, name string, by func(user string) (string, error)) (token string, seed []byte) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if seed, err = key.Seed(); err != nil {
		t.Fatal(err)
	}
	if f.users[name], err = key.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if token, err = by(f.users[name]); err != nil {
		t.Fatal(err)
	}
	return token, seed
}

func (f *fleet) login(t *testing.T, name string, by func(user string) (string, error)) *wire {
	t.Helper()
	token, seed := f.grant(t, name, by)
	w, err := dialWire(t, f.addr, token, seed)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return w
}

func (f *fleet) manager(tenant string) func(string) (string, error) {
	return func(user string) (string, error) { return f.mint.Manager(tenant, "host", user) }
}

// manage connects as a manager of a tenant.
func (f *fleet) manage(t *testing.T, tenant string) bus.Conn {
	t.Helper()
	name := tenant + ".creds"
	f.write(t, name, func() ([]byte, error) { return f.server.ManagerCreds(tenant) })
	return f.connect(t, bus.Options{Creds: name, Tenant: tenant})
}

func (f *fleet) replica(group, id string) func(string) (string, error) {
	return func(user string) (string, error) { return f.mint.Replica("red", group, id, user) }
}

func (f *fleet) join(expires time.Duration) func(string) (string, error) {
	return func(user string) (string, error) {
		return f.mint.Join("red", "web", joiner, user, time.Now().Add(expires))
	}
}

// everybody logs in the columns of the table.
func (f *fleet) everybody(t *testing.T) map[string]*wire {
	t.Helper()
	all := map[string]*wire{
		"M": f.login(t, "manager", f.manager("red")),
		"B": f.login(t, "blue", f.manager("blue")),
		"R": f.login(t, "web1", f.replica("web", web1)),
		"S": f.login(t, "web2", f.replica("web", web2)),
		"A": f.login(t, "api1", f.replica("api", api1)),
		"J": f.login(t, "joiner", f.join(time.Minute)),
	}
	f.words = map[string]string{"log": secretWord(t, all["M"], "KEYTURN_red"), "board": secretWord(t, all["M"], "KEYTURN_red_BOARD")}
	return all
}

// secretWord learns from the stream's configuration by which word managers
// write.
func secretWord(t *testing.T, w *wire, stream string) string {
	t.Helper()
	outcome, answer := w.request("$JS.API.STREAM.INFO."+stream, "")
	var info struct {
		Config struct{ Subjects []string }
	}
	if err := json.Unmarshal(answer, &info); outcome != done || err != nil {
		t.Fatal(outcome, err)
	}
	for _, s := range info.Config.Subjects {
		if word := strings.Split(s, ".")[3]; word != "open" {
			return word
		}
	}
	t.Fatal("no secret word in ", info.Config.Subjects)
	return ""
}
