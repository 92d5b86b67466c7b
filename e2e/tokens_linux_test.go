// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
)

// TestTokens gives hosts tokens that must not let them in.
func TestTokens(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	token, h := f.token("web"), newHost(t, f.network, "lb1")
	dir := func(name string) string { return filepath.Join(h.state, name) }
	join := func(token, name string) []string {
		return []string{"replica", "join", token, "--dir", dir(name), "--timeout", "10s"}
	}
	h.refused(2, []string{"cut"}, join(token[:len(token)-7], "cut")...)
	h.refused(1, []string{"expired", "make a new one"}, join(changed(t, token, func(t *event.Token) { t.Expires = time.Now().Add(-time.Second) }), "expired")...)

	h.keyturn(join(token, "first")...)
	h.refused(1, []string{"used by another host", "make a new one"}, join(token, "second")...)
	h.refused(1, []string{"joined already"}, join(f.token("web"), "first")...)
	h.keyturn("replica", "join", f.token("web"), "--dir", dir("third"))

	f.ops.keyturn("group", "mk", "db")
	other := changed(t, f.token("db"), func(t *event.Token) { t.Group = "web" })
	h.refused(1, nil, join(other, "other")...)
	for _, name := range []string{"cut", "expired", "second", "other"} {
		for _, file := range []string{replica.MemberFile, "groups/web.key"} {
			if _, err := os.Stat(filepath.Join(dir(name), file)); !os.IsNotExist(err) {
				t.Errorf("the token that is %s: %s: %v", name, file, err)
			}
		}
	}
	if out := f.ops.keyturn("replica", "ls"); len(lines(out)) != 3 {
		t.Errorf("two hosts joined, and these are listed:\n%s", out)
	}
}

// changed changes a token.
func changed(t *testing.T, text string, change func(*event.Token)) string {
	t.Helper()
	token, err := event.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	change(token)
	return token.Encode()
}

// TestGroupsAreApart has a balancer of another group, which gets nothing of web's.
func TestGroupsAreApart(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.ops.keyturn("group", "mk", "db")
	web, db := f.join(newHost(t, f.network, "lb1"), "web"), f.join(newHost(t, f.network, "db1"), "db")
	web.start(f.user)
	db.start(f.user)
	webID := strings.TrimSpace(f.ops.keyturn("cert", "mk", webName, "--subdomain", "--group", "web", "--wait", "served"))
	dbID := strings.TrimSpace(f.ops.keyturn("cert", "mk", "db.example.com", "--subdomain", "--group", "db", "--wait", "served"))
	for _, c := range []struct {
		b     *balancer
		id    string
		name  string
		other string
	}{{web, webID, webName, "db.example.com"}, {db, dbID, "db.example.com", webName}} {
		if err := f.client(c.b, c.id, c.name).sees(f.ops.cat(c.id).Certificate.Serial); err != nil {
			t.Errorf("%s: %v", c.b.Name, err)
		}
		if got, err := f.client(c.b, c.id, c.other).serial(); err == nil {
			t.Errorf("%s serves %s, too, with serial %s", c.b.Name, c.other, got)
		}
	}
	if _, err := os.Stat(replica.KeyFile(db.dir, "web")); !os.IsNotExist(err) {
		t.Errorf("the key of group web on a host of group db: %v", err)
	}
}

// TestJoinKilled kills a join at two points: with nothing but its own keys, and
// while it waits for the group's key. The same command completes it.
func TestJoinKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	token, h := f.token("web"), newHost(t, f.network, "lb1")
	dir := filepath.Join(h.state, "replica")
	args := []string{"replica", "join", token, "--dir", dir, "--name", h.Name}
	killAt := func(file string) {
		t.Helper()
		p := h.start(keyturn, args...)
		eventually(t, "the join", func() error {
			if p.ended() {
				t.Fatalf("%s: exit code %d\n%s", p, p.code, tail(p.err.String()))
			}
			_, err := os.Stat(filepath.Join(dir, file))
			return err
		})
		p.kill(t)
	}
	// Without the group's key a manager takes the request, and cannot grant it.
	key, away := replica.KeyFile(f.ops.data, "web"), filepath.Join(f.ops.state, "web.key")
	if err := os.Rename(key, away); err != nil {
		t.Fatal(err)
	}
	killAt(replica.HostFile)
	killAt("join.member") // what a manager answered, without the group's key
	if out := f.ops.keyturn("replica", "ls", "web"); !strings.Contains(out, "waiting") {
		t.Errorf("a host waits for the key, and the list is:\n%s", out)
	}
	f.ops.keyturn("group", "grant", "web", "--key", away)
	h.keyturn(args...)
	if out := f.ops.keyturn("replica", "ls", "web"); !strings.Contains(out, "granted") || len(lines(out)) != 2 {
		t.Errorf("one host joined, and the list is:\n%s", out)
	}
	b := &balancer{host: h, dir: dir}
	b.start(f.user)
	id := strings.TrimSpace(f.ops.keyturn("cert", "mk", webName, "--subdomain", "--group", "web", "--wait", "served"))
	if err := f.client(b, id, webName).sees(f.ops.cat(id).Certificate.Serial); err != nil {
		t.Error(err)
	}
}

// TestBusIsTLS connects to the bus from another host, by hand: what is not TLS 1.3
// with the certificate that joined directories pin gets no further than the
// greeting.
func TestBusIsTLS(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	pinned := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(f.ops.data, "bus.ca"))
	if err != nil {
		t.Fatal(err)
	}
	pinned.AppendCertsFromPEM(text)
	if err := f.busTLS(&tls.Config{RootCAs: pinned, ServerName: f.ops.IP, MinVersion: tls.VersionTLS13}); err != nil {
		t.Errorf("with the CA of bus.ca: %v", err)
	}
	for name, config := range map[string]*tls.Config{
		"the system's CAs": {ServerName: f.ops.IP},
		"another name":     {RootCAs: pinned, ServerName: "10.7.0.99"},
		"TLS 1.2":          {RootCAs: pinned, ServerName: f.ops.IP, MaxVersion: tls.VersionTLS12},
	} {
		if err := f.busTLS(config); err == nil {
			t.Errorf("with %s: the handshake is done", name)
		}
	}

	conn, r := f.greeted()
	defer conn.Close()
	if _, err := io.WriteString(conn, "CONNECT {\"verbose\":false}\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(r)
	if strings.Contains(string(answer), "PONG") || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without TLS the bus answers %q, and then: %v", answer, err)
	}
}

// greeted connects to the bus, and reads what it says before anything else.
func (f *fleet) greeted() (net.Conn, *bufio.Reader) {
	f.t.Helper()
	conn, err := f.user.Dial(f.t.Context(), f.busAddr)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		f.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		f.t.Fatal(err)
	}
	var info struct {
		Required bool `json:"tls_required"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil || !info.Required {
		f.t.Errorf("the bus does not require TLS: %s (%v)", line, err)
	}
	return conn, r
}

// busTLS makes a handshake with the bus.
func (f *fleet) busTLS(config *tls.Config) error {
	f.t.Helper()
	plain, _ := f.greeted()
	defer plain.Close()
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(f.t.Context()); err != nil {
		return err
	}
	if v := conn.ConnectionState().Version; v != tls.VersionTLS13 {
		return fmt.Errorf("it is %s", tls.VersionName(v))
	}
	return nil
}
