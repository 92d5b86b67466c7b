// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// scheduleEvent is what EventBridge sends where a schedule says nothing else.
const scheduleEvent = `{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event","source":"aws.events",` +
	`"account":"123456789012","time":"2027-01-31T12:00:00Z","region":"us-east-1","resources":[],"detail":{}}`

// A deadMansSwitch takes down what it is told.
type deadMansSwitch struct {
	*httptest.Server
	told chan checkInBody
}

type checkInBody struct {
	path         string
	OK           bool
	TTL          int64 `json:"ttl_seconds"`
	Due, Renewed int
}

func newDeadMansSwitch(t *testing.T) *deadMansSwitch {
	d := &deadMansSwitch{told: make(chan checkInBody, 8)}
	d.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b := checkInBody{path: r.URL.Path}
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Errorf("a check-in: %v", err)
		}
		d.told <- b
	}))
	t.Cleanup(d.Close)
	return d
}

// variable is how the function is told of it.
func (d *deadMansSwitch) variable() string { return "KEYTURN_CHECK_IN=" + d.URL + "/ping{|/fail}" }

// want checks the check-in of a pass, which comes before its answer.
func (d *deadMansSwitch) want(t *testing.T, want checkInBody) {
	t.Helper()
	select {
	case got := <-d.told:
		if got != want {
			t.Errorf("the check-in is %+v, want %+v", got, want)
		}
	default:
		t.Error("no check-in came")
	}
}

// pemOf reads an identity, to be the value of a variable.
func pemOf(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLambda has a fleet whose only managers are functions.
func TestLambda(t *testing.T) {
	t.Parallel()
	f := newTableFleet(t)
	ops := f.dir("ops")
	f.newManager(ops, tenant)
	f.newManager(f.dir("stranger"), "strangers")
	serve := f.run(ops)
	f.keyturn("group", "mk", "web", "--data", ops)
	lb1 := f.join(ops, "lb1")
	f.keyturn("manager", "add", "function", "--dir", f.dir("added"), "--data", ops)
	serve.stop(t, sigterm) // and none runs from here on

	d := newDeadMansSwitch(t)
	common := []string{"KEYTURN_BUS=" + tableURL, "KEYTURN_EVERY=15m", d.variable()}
	with := func(identity string, more ...string) *function {
		return f.function(t, slices.Concat(common, []string{"KEYTURN_IDENTITY=" + identity}, more)...)
	}
	fn := with(pemOf(t, ops))
	if renewed, left := fn.pass(scheduleEvent); len(renewed)+left != 0 {
		t.Errorf("%v was renewed, and %d were left: nothing was due", renewed, left)
	}
	d.want(t, checkInBody{path: "/ping", OK: true, TTL: 2700})

	ids := f.soonDue(ops, 3)
	if renewed, left := fn.pass(`{"max": 1}`); len(renewed) != 1 || left != 2 {
		t.Errorf("%v was renewed, and %d were left: want one, and two", renewed, left)
	}
	d.want(t, checkInBody{path: "/ping", OK: true, TTL: 2700, Due: 3, Renewed: 1})
	began := time.Now()
	if renewed, _ := fn.pass(scheduleEvent); len(renewed) < 2 {
		t.Errorf("%v was renewed, want what had been left", renewed)
	}
	<-d.told
	f.served(t, ops, lb1, ids)
	f.heard(t, ops, began)

	t.Run("Added", func(t *testing.T) {
		fn := with(pemOf(t, f.dir("added")))
		ids := f.soonDue(ops, 1)
		if renewed, _ := fn.pass(`{"for": "50s"}`); !slices.ContainsFunc(renewed, func(r passRow) bool { return r.ID == ids[0] }) {
			t.Errorf("%v was renewed by the manager that was added", renewed)
		}
		<-d.told
		f.served(t, ops, lb1, ids)
	})
	t.Run("Secret", func(t *testing.T) {
		arn := "arn:aws:secretsmanager:us-east-1:123456789012:secret:keyturn/identity-AbCdEf"
		var identity string
		manager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body) // an unreadable one is not the one below
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || string(body) != fmt.Sprintf(`{"SecretId":%q}`, arn) || identity == "" {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"__type":"AccessDeniedException","Message":"no"}`)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"ARN": arn, "SecretString": identity}) // a failure shows at the client
		}))
		defer manager.Close()
		fn := with(arn, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+manager.URL)
		if kind, message := fn.failure(scheduleEvent); kind != "Keyturn.PassFailed" || !strings.Contains(message, "secretsmanager:GetSecretValue") {
			t.Errorf("without the permission: %s: %s", kind, message)
		}
		d.want(t, checkInBody{path: "/ping/fail", TTL: 2700})
		identity = pemOf(t, ops)
		fn.pass(`{}`)
		<-d.told
	})
	t.Run("Stranger", func(t *testing.T) {
		identity := pemOf(t, f.dir("stranger"))
		fn := with(identity)
		kind, message := fn.failure(scheduleEvent)
		if kind != "Keyturn.PassFailed" || !strings.Contains(message, "not trusted") {
			t.Errorf("%s: %s", kind, message)
		}
		d.want(t, checkInBody{path: "/ping/fail", TTL: 2700})
		for _, line := range append(lines(identity), roleSecret) {
			if !strings.HasPrefix(line, "-----") && strings.Contains(message+fn.process.err.String(), line) {
				t.Errorf("a secret is told: %s\n%s", message, fn.process.err.String())
			}
		}
	})
	t.Run("Start", func(t *testing.T) {
		fn := f.function(t, common...)
		a := <-fn.answers
		if a.path != "init/error" || !strings.Contains(a.body, "Keyturn.StartFailed") || !strings.Contains(a.body, "KEYTURN_IDENTITY") {
			t.Errorf("%s: %s", a.path, a.body)
		}
		if code, err := fn.process.wait(); err != nil || code != 1 {
			t.Errorf("the function ended with %d, %v", code, err)
		}
	})
}

// soonDue makes certificates that live for minutes and are due in seconds, and
// waits until they are.
func (f *tableFleet) soonDue(manager string, n int) (ids []string) {
	f.t.Helper()
	for range n {
		name := fmt.Sprintf("n%d.example.com", time.Now().UnixNano())
		ids = append(ids, strings.TrimSpace(f.keyturn("cert", "mk", name, "--subdomain", "--group", "web",
			"--lifetime", "4m", "--renew-before", "238s", "--data", manager)))
	}
	for _, id := range ids {
		eventually(f.t, "a time to renew", func() error {
			if at := f.issued(manager, id).RenewAt; !at.Before(time.Now()) {
				return fmt.Errorf("%s is due at %v", id, at)
			}
			return nil
		})
	}
	return ids
}

// served waits until a host serves the newest generations, which are not the first.
func (f *tableFleet) served(t *testing.T, manager string, h *tableHost, ids []string) {
	t.Helper()
	for _, id := range ids {
		f.keyturn("status", id, "--wait", "--data", manager)
		c := f.issued(manager, id)
		if c.Generation < 2 {
			t.Errorf("%s is at generation %d", id, c.Generation)
		}
		if err := h.visitor(c).sees(c.Certificate.Serial); err != nil {
			t.Error(err)
		}
	}
}

// heard checks that a pass told the replicas what they should have, and that
// they know of it.
func (f *tableFleet) heard(t *testing.T, manager string, since time.Time) {
	t.Helper()
	var fleet struct {
		Groups []struct {
			Name            string
			Members, Silent int
			Differing       int
			Beacon          time.Time
		}
	}
	if err := json.Unmarshal([]byte(f.keyturn("status", "--group", "web", "--data", manager, "-o", "json")), &fleet); err != nil || len(fleet.Groups) != 1 {
		t.Fatalf("status: %v, %v", fleet, err)
	}
	if g := fleet.Groups[0]; g.Members != 1 || g.Silent+g.Differing != 0 || g.Beacon.Before(since) {
		t.Errorf("the group is %+v, want a beacon after %v, and no silent member", g, since)
	}
}
