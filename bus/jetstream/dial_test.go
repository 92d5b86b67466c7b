// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
)

// elsewhere is an address of this machine that is not loopback, as another
// machine would use it.
func elsewhere(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback; run: ip link add dummy0 type dummy && ip addr add 192.0.2.1/32 dev dummy0")
	return ""
}

// TestTLS: which connections are made, to whom, and which are not.
func TestTLS(t *testing.T) {
	far := elsewhere(t)
	dir := t.TempDir()
	ours, others := newCA(t), newCA(t)
	roots, wrongRoots, noRoots := filepath.Join(dir, "ours"), filepath.Join(dir, "others"), filepath.Join(dir, "none")
	ours.write(t, roots)
	others.write(t, wrongRoots)
	writeFile(t, noRoots, "no PEM\n")
	plain := listen(t, server.Options{})
	secure := listen(t, server.Options{TLS: true, TLSConfig: ours.server(t, far, "127.0.0.1", "localhost")})
	misnamed := listen(t, server.Options{TLS: true, TLSConfig: ours.server(t, "bus.example")})
	old := ours.server(t, far)
	old.MaxVersion = tls.VersionTLS12
	dated := listen(t, server.Options{TLS: true, TLSConfig: old})
	optional := listen(t, server.Options{TLS: true, AllowNonTLS: true, TLSConfig: ours.server(t, far, "127.0.0.1")})
	at := func(scheme, host string, port int) string { return fmt.Sprintf("%s://%s:%d", scheme, host, port) }
	for what, c := range map[string]struct {
		url, roots, err string
	}{
		"plain on loopback":                    {at("nats", "127.0.0.1", plain), "", ""},
		"plain on localhost":                   {at("nats", "localhost", plain), "", ""},
		"plain elsewhere":                      {at("nats", far, plain), "", "the server offers no TLS"},
		"plain elsewhere, roots given":         {at("nats", far, plain), roots, "the server offers no TLS"},
		"plain on loopback, TLS asked for":     {at("tls", "127.0.0.1", plain), "", "the server offers no TLS"},
		"TLS elsewhere":                        {at("tls", far, secure), roots, ""},
		"TLS elsewhere, scheme nats":           {at("nats", far, secure), roots, ""},
		"TLS on loopback, scheme nats":         {at("nats", "127.0.0.1", secure), roots, ""},
		"TLS on localhost":                     {at("tls", "localhost", secure), roots, ""},
		"TLS by other roots":                   {at("tls", far, secure), wrongRoots, "unknown authority"},
		"TLS by the system's roots":            {at("tls", far, secure), "", "unknown authority"},
		"TLS on loopback by the wrong roots":   {at("nats", "127.0.0.1", secure), wrongRoots, "unknown authority"},
		"TLS by a file without roots":          {at("tls", far, secure), noRoots, "holds no CA certificate"},
		"TLS by a file that is not there":      {at("tls", far, secure), filepath.Join(dir, "gone"), "no such file"},
		"TLS of another host":                  {at("tls", far, misnamed), roots, "certificate"},
		"TLS 1.2":                              {at("tls", far, dated), roots, "protocol version"},
		"TLS offered, elsewhere":               {at("nats", far, optional), roots, ""},
		"TLS offered, elsewhere, wrong roots":  {at("nats", far, optional), wrongRoots, "unknown authority"},
		"TLS offered, on loopback":             {at("nats", "127.0.0.1", optional), wrongRoots, ""},
		"the first of several does not answer": {at("nats", "127.0.0.1", 1) + "," + at("tls", far, secure), roots, ""},
		"plain and TLS, in one list":           {at("nats", far, plain) + ", " + at("tls", far, secure), roots, ""},
		"none of several will do":              {at("nats", far, plain) + "," + at("tls", far, dated), roots, "the server offers no TLS"},
	} {
		l := connect(t, jetstream.Options{URL: c.url, RootsFile: c.roots})
		err := l.Connected(t.Context())
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", what, err, c.err)
		}
		l.Close()
	}
}

// TestFilesAreReadAtEveryAttempt: the bus moves, and its CA is another, while a
// program runs.
func TestFilesAreReadAtEveryAttempt(t *testing.T) {
	far := elsewhere(t)
	dir := t.TempDir()
	first, second := newCA(t), newCA(t)
	at := func(port int) string { return fmt.Sprintf("tls://%s:%d\n", far, port) }
	port := listen(t, server.Options{TLS: true, TLSConfig: second.server(t, far)})
	first.write(t, filepath.Join(dir, bus.RootsFile))
	l := connect(t, jetstream.Options{URLFile: filepath.Join(dir, bus.URLFile), RootsFile: filepath.Join(dir, bus.RootsFile)})
	until(t, l, "no bus runs here")
	writeFile(t, filepath.Join(dir, bus.URLFile), "http://bus.example\n")
	until(t, l, "is not a URL")
	writeFile(t, filepath.Join(dir, bus.URLFile), at(port))
	until(t, l, "unknown authority")
	second.write(t, filepath.Join(dir, bus.RootsFile))
	until(t, l, "")
}

// TestRootsComeLater: a bus that needed none moves to where it is known by a CA of its
// own, while a program runs.
func TestRootsComeLater(t *testing.T) {
	far := elsewhere(t)
	dir := t.TempDir()
	own := newCA(t)
	port := listen(t, server.Options{TLS: true, TLSConfig: own.server(t, far)})
	creds, err := newMint(t).FirstManager("default")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, bus.ManagerCreds), string(creds))
	writeFile(t, filepath.Join(dir, bus.URLFile), "nats://127.0.0.1:1\n")
	c, err := bus.OpenDir(dir, bus.Options{Creds: bus.ManagerCreds, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, c, "refused")
	writeFile(t, filepath.Join(dir, bus.URLFile), fmt.Sprintf("tls://%s:%d\n", far, port))
	until(t, c, "unknown authority")
	own.write(t, filepath.Join(dir, bus.RootsFile))
	until(t, c, "")
}

// until returns when a bus cannot be reached for the wanted reason, or can be where
// that is "".
func until(t *testing.T, c bus.Conn, want string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for err := c.Check(); err != nil || want != ""; err = c.Check() {
		if err != nil && want != "" && strings.Contains(err.Error(), want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v, want %q", err, want)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestAServerThatTalksOn in the clear, where TLS begins, may put words into
// another's mouth.
func TestAServerThatTalksOn(t *testing.T) {
	for what, c := range map[string]struct{ greeting, err string }{
		"more than a greeting": {"INFO {\"tls_required\":true}\r\n+OK\r\n", "went on talking in the clear"},
		"no greeting":          {"HTTP/1.1 400 Bad Request\r\n", "does not greet like a NATS server"},
		"no JSON":              {"INFO {\r\n", "greeting"},
		"an endless greeting":  {"INFO " + strings.Repeat("x", 1<<17), "greeting"},
		"nothing":              {"", "greeting"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c2, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c2.Write([]byte(c.greeting)) // the client may have seen enough
				if c.greeting == "" {
					_ = c2.Close()
				}
				t.Cleanup(func() { _ = c2.Close() })
			}
		}()
		b := connect(t, jetstream.Options{URL: "tls://" + l.Addr().String()})
		if err := b.Connected(t.Context()); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", what, err, c.err)
		}
		b.Close()
		_ = l.Close()
	}
}

// TestAskedDuringLogin: a server that is busy asks whether the client is still there
// before it has answered the login, in whatever pieces.
func TestAskedDuringLogin(t *testing.T) {
	for what, pieces := range map[string][]string{
		"not at all":    {"PONG\r\n"},
		"once":          {"PING\r\nPONG\r\n"},
		"three times":   {"PING\r\n", "PING\r\nPI", "NG\r\n", "PONG\r\n"},
		"in the middle": {"PING\r\nPO", "NG\r\n"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		asked := strings.Count(strings.Join(pieces, ""), "PING\r\n")
		served := make(chan error, 1)
		go func() {
			served <- func() error {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				t.Cleanup(func() { _ = c.Close() })
				r := bufio.NewReader(c)
				if _, err := c.Write([]byte("INFO {\"max_payload\":1024}\r\n")); err != nil {
					return err
				}
				for _, want := range []string{"CONNECT ", "PING"} {
					if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
						return fmt.Errorf("got %q, %v; want %s", line, err, want)
					}
				}
				for _, piece := range pieces {
					if _, err := c.Write([]byte(piece)); err != nil {
						return err
					}
					time.Sleep(20 * time.Millisecond) // so that it is read by itself
				}
				for range asked {
					if line, err := r.ReadString('\n'); err != nil || line != "PONG\r\n" {
						return fmt.Errorf("got %q, %v; want PONG", line, err)
					}
				}
				return nil
			}()
		}()
		b := connect(t, jetstream.Options{URL: "nats://" + l.Addr().String()})
		if err := b.Connected(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := <-served; err != nil {
			t.Errorf("%s: %v", what, err)
		}
		b.Close()
		_ = l.Close()
	}
}
