// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
)

// TestAnswersAreNoWayToWrite: whoever makes a request names where the server
// sends the answer, and the server does not ask whether he may publish there.
func TestAnswersAreNoWayToWrite(t *testing.T) {
	f := startFleet(t)
	all := f.everybody(t)
	logs := make(map[string]bus.Conn)
	precious := make(map[string]bus.Entry)
	for _, tenant := range []string{"red", "blue"} {
		l := f.manage(t, tenant)
		p, err := l.Append(t.Context(), "state/x", bus.Position{}, []byte("precious"))
		if err != nil {
			t.Fatal(err)
		}
		logs[tenant], precious[tenant] = l, bus.Entry{Key: "state/x", Data: []byte("precious"), Position: p}
	}
	for who, w := range all {
		tenant := "red"
		if who == "B" {
			tenant = "blue"
		}
		get := fmt.Sprintf("$JS.API.DIRECT.GET.KEYTURN_%s.keyturn.%s.id.log", tenant, tenant)
		for _, target := range []string{
			"keyturn.red.state.x._", "keyturn.blue.state.x._",
			"ktput.red.log.open.state.x._", "ktput.blue.log.open.state.x._", "ktput.red.log.x.state.x._",
			"$JS.API.STREAM.DELETE.KEYTURN_red", "$JS.API.STREAM.DELETE.KEYTURN_blue",
			"$JS.API.STREAM.PURGE.KEYTURN_red", "$JS.API.STREAM.PURGE.KEYTURN_blue",
		} {
			w.publish(get, target, "")
			if !slices.Contains([]string{"M", "R", "S"}, who) {
				continue
			}
			name := consumerName(w.user, "KEYTURN_red", "group/web")
			if who == "M" {
				name = fmt.Sprint("m", w.n)
			} else if outcome, _ := w.request("$JS.API.CONSUMER.DELETE.KEYTURN_red."+name, ""); outcome == denied {
				t.Errorf("%s may not remove %s", who, name)
			}
			body := strings.Replace(w.consumer("KEYTURN_red", name, "keyturn.red.group.web.>"), "_INBOX_"+w.user+".deliver", target, 1)
			if outcome, answer := w.request("$JS.API.CONSUMER.CREATE.KEYTURN_red."+name+".keyturn.red.group.web.>", body); outcome == denied {
				t.Errorf("%s may not follow group/web: %s", who, answer)
			}
		}
		// That it works at all, the way that is open to those who join shows.
		w.publish(get, "ktput."+tenant+".log.open.join."+who+"._", "")
		for {
			if e, err := logs[tenant].Get(t.Context(), "join/"+who); err == nil {
				if !strings.Contains(string(e.Data), id(t, w, tenant)) {
					t.Errorf("%s had %q written", who, e.Data)
				}
				break
			} else if !errors.Is(err, bus.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	if _, err := logs["red"].Append(t.Context(), "group/web/x", bus.Position{}, []byte("to be delivered")); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range precious {
		got, err := logs[tenant].Get(t.Context(), "state/x")
		if err != nil || string(got.Data) != string(want.Data) || got.Position != want.Position {
			t.Errorf("%s: %q at %v, %v", tenant, got.Data, got.Position, err)
		}
	}
}

func id(t *testing.T, w *wire, tenant string) string {
	t.Helper()
	outcome, answer := w.request(fmt.Sprintf("$JS.API.DIRECT.GET.KEYTURN_%s.keyturn.%s.id.log", tenant, tenant), "")
	if outcome != done {
		t.Fatal(outcome)
	}
	lines := strings.Split(string(answer), "\r\n")
	return lines[len(lines)-1]
}

// TestAnswersAreNoWayToRevoke: a request to join is whatever its sender likes,
// and he may have the server answer with it wherever he likes.
func TestAnswersAreNoWayToRevoke(t *testing.T) {
	f := startFleet(t)
	all := f.everybody(t)
	token, seed := f.grant(t, "another manager", f.manager("red"))
	j := all["J"]
	if o := j.publish("ktput.red.log.open.join."+joiner+"._", "", f.users["another manager"]); o != done {
		t.Fatal(o)
	}
	ask := "$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.join." + joiner + "._"
	for _, subject := range []string{"ktrevoke.red", "ktrevoke.red.open", "ktrevoke.red.*", "ktrevoke.blue." + f.words["log"]} {
		j.publish(ask, subject, "")
		if outcome, _ := j.request(ask, ""); outcome != done { // answered after it
			t.Fatal(outcome)
		}
	}
	// The server takes them in turn: once a manager's own is done, so are those.
	f.grant(t, "third", f.manager("red"))
	if err := f.manage(t, "red").(*jetstream.Log).Revoke(t.Context(), []string{f.users["third"]}); err != nil {
		t.Fatal(err)
	}
	if _, err := dialWire(t, f.addr, token, seed); err != nil {
		t.Errorf("who may join has had a manager revoked: %v", err)
	}
	// With the word it is one of their own ways.
	j.publish(ask, "ktrevoke.red."+f.words["log"], "")
	for {
		if _, err := dialWire(t, f.addr, token, seed); err != nil {
			return
		}
	}
}
