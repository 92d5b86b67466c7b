// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/natsserver"
)

// TestBusGuide follows bus.md word by word, each block on its host: from the embedded bus
// to three servers, through the loss of servers, and back, while a client does handshakes.
func TestBusGuide(t *testing.T) {
	g := newGuide(t, "ops", "lb1", "n1", "n2", "n3")
	g.services()
	g.embeddedFleet()
	w := g.watch("lb1", "8443", "www.example.com")
	const reduced, whole = "server n2 does not have the newest entries", "durability as promised"
	wanted := []string{whole, reduced, whole, whole, whole, whole} // of bus status, where that is a block's last command
	g.after = func(block, out string) {
		if !strings.HasSuffix(block, "keyturn bus status\n") {
			return
		}
		if len(wanted) == 0 {
			t.Fatalf("a report too many: %s", out)
		}
		g.status(out, wanted[0])
		wanted = wanted[1:]
	}
	serials := g.follow("bus.md")
	w.end()
	if len(serials) != 2 || serials[0] == serials[1] {
		t.Errorf("the serials are %q: want the one before the move, and one that was made after it", serials)
	}
	if len(wanted) > 0 {
		t.Errorf("%d reports are missing", len(wanted))
	}
}

// services stands for systemd: it starts and ends, on a host, what the page is about,
// whose files lie below the host's directory.
const services = `#!/bin/sh
set -eu
here=$HOSTS/$HOST
for unit; do :; done
pid=$here/$unit.pid
case $1 in
start)
	cd "$here/etc"
	if [ "$unit" = keyturn ]; then
		env $(cat keyturn/serve.env) keyturn serve </dev/null >>"$here/$unit.out" 2>&1 &
		echo $! >"$pid"
		until keyturn cert ls >/dev/null 2>&1; do kill -0 "$(cat "$pid")"; sleep 0.1; done
	else
		cd nats
		sed "s|\"/var/lib/|\"$here/var/lib/|" nats-server.conf >here.conf
		nats-server --config here.conf </dev/null >>"$here/$unit.out" 2>&1 &
		echo $! >"$pid"
		until grep -q "Server is ready" "$here/$unit.out"; do kill -0 "$(cat "$pid")"; sleep 0.1; done
	fi
	exit
	;;
stop) kill "$(cat "$pid")" ;;
kill)
	[ "$2" = --signal=KILL ]
	kill -KILL "$(cat "$pid")"
	;;
*) exit 1 ;;
esac
while kill -0 "$(cat "$pid")" 2>/dev/null; do sleep 0.05; done
rm "$pid"
`

// services puts systemctl and nats-server on every host, and what is below / below the
// host's directory.
func (g *guide) services() {
	g.t.Helper()
	bin := filepath.Join(g.dir, "bin")
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(services), 0o700); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Symlink(natsserver.Program(g.t), filepath.Join(bin, "nats-server")); err != nil {
		g.t.Fatal(err)
	}
	g.below = []string{"/etc/", "/var/lib/"}
	for _, name := range g.names {
		for _, dir := range g.below {
			if err := os.MkdirAll(filepath.Join(g.dir, name, dir), 0o700); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	g.t.Cleanup(func() {
		for _, name := range g.names {
			stop := g.command(g.hosts[name], `for pid in *.pid; do [ ! -e "$pid" ] || systemctl stop "${pid%.pid}"; done`)
			if out, err := stop.CombinedOutput(); err != nil {
				g.t.Errorf("on %s: %v\n%s", name, err, out)
			}
			outs, _ := filepath.Glob(filepath.Join(g.dir, name, "*.out"))
			for _, out := range outs {
				if text, err := os.ReadFile(out); err == nil && g.t.Failed() {
					g.t.Logf("%s on %s said:\n%s", filepath.Base(out), name, text)
				}
			}
		}
	})
}

// embeddedFleet is what the page begins with: a manager with an embedded bus, and a host.
func (g *guide) embeddedFleet() {
	g.t.Helper()
	g.env = append(g.env, "KEYTURN_DATA="+filepath.Join(g.dir, "ops", "var/lib/keyturn"))
	for _, step := range []struct{ host, block string }{
		{"ops", `mkdir /etc/keyturn
echo KEYTURN_NATS=10.7.0.1:4222 > /etc/keyturn/serve.env
systemctl start keyturn
printf 'default_issuer: internal\nissuers: {internal: {type: local, lifetime: 30d}}\n' | keyturn conf update
keyturn group mk web
keyturn replica token web > lb1.token
scp lb1.token lb1:`},
		{"lb1", "keyturn replica join - --dir replica < lb1.token"},
	} {
		g.run(g.hosts[step.host], g.local(step.host, step.block))
	}
	g.background(g.hosts["lb1"], g.local("lb1", "server --dir replica --listen 10.7.0.2:8443"))
	g.run(g.hosts["ops"], "keyturn cert mk www.example.com --subdomain --group web --wait served > id")
}

// status returns when bus status says what is wanted, as it does at once, or within the
// seconds in which a server may be silent.
func (g *guide) status(out, want string) {
	g.t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out, want); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("bus status does not say %q:\n%s", want, out)
		}
		text, err := g.command(g.hosts["ops"], "keyturn bus status").CombinedOutput()
		if err != nil {
			g.t.Fatalf("bus status: %v\n%s", err, text)
		}
		out = string(text)
	}
}

// A handshakeWatch does handshakes with a host, one after the other.
type handshakeWatch struct {
	g    *guide
	stop chan struct{}
	done sync.WaitGroup

	all    int      // read after done
	failed []string // likewise
}

// watch begins handshakes with a host's server.
func (g *guide) watch(host, port, name string) *handshakeWatch {
	w := &handshakeWatch{g: g, stop: make(chan struct{})}
	addr := g.addr(host, port)
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			w.all++
			if err := g.handshake(addr, name); err != nil {
				w.failed = append(w.failed, err.Error())
			}
		}
	})
	g.t.Cleanup(w.end)
	return w
}

// handshake does one from the host ops, whoever signed the certificate.
func (g *guide) handshake(addr, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's ends before the watch
	defer cancel()
	raw, err := g.hosts["ops"].Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	return conn.ConnectionState().PeerCertificates[0].VerifyHostname(name)
}

// end ends the watch: none of the handshakes may have failed.
func (w *handshakeWatch) end() {
	select {
	case <-w.stop:
		return
	default:
	}
	close(w.stop)
	w.done.Wait()
	w.g.t.Logf("%d handshakes", w.all)
	if w.all == 0 || len(w.failed) > 0 {
		w.g.t.Errorf("%d of %d handshakes failed: %s", len(w.failed), w.all, strings.Join(w.failed, "\n"))
	}
}
