// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
)

// maxInfo bounds the server's greeting, in bytes.
const maxInfo = 64 << 10

// keepAlive has the system end a connection over which nothing came back for 15
// seconds.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: heartbeat, Interval: heartbeat, Count: 2}

// connectTimeout bounds finding a server, at whatever URL, and then the login: a fleet that
// comes back as one is let in one by one, and whoever gives up in the middle makes the
// server begin with him anew.
const connectTimeout = 10 * time.Second

// maxRoots bounds a file of CA certificates, in bytes.
const maxRoots = 256 << 10

// A dialer finds the server at every attempt anew, and does the TLS, which it
// knows per URL to be needed or not: to the NATS client, all connections are
// plain ones to a server that offers nothing else.
type dialer struct {
	url, urlFile, rootsFile string
	rootsLater              bool // until there is a rootsFile, the roots are the system's

	mu   sync.Mutex
	turn int      // guarded by mu; which URL is the next to be tried
	last *url.URL // guarded by mu; the one reached last
}

// Dial implements nats.CustomDialer. It tries every URL once, beginning after
// the one that was reached last.
func (d *dialer) Dial(network, _ string) (net.Conn, error) {
	urls, err := d.urls()
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(connectTimeout)
	var errs []error
	for i := range urls {
		u := d.next(urls)
		until := time.Now().Add(time.Until(deadline) / time.Duration(len(urls)-i))
		c, err := d.dial(network, u, until)
		if err == nil {
			d.mu.Lock()
			d.last = u
			d.mu.Unlock()
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) next(urls []*url.URL) *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	return urls[(d.turn-1)%len(urls)]
}

func (d *dialer) urls() ([]*url.URL, error) {
	if d.url != "" {
		return parseURLs(d.url)
	}
	text, err := durable.ReadFile(d.urlFile, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no bus runs here: %s does not exist", d.urlFile)
	}
	if err != nil {
		return nil, err
	}
	urls, err := parseURLs(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d.urlFile, err)
	}
	return urls, nil
}

// dial connects, reads the greeting, and goes over to TLS where the URL or the
// server wants it.
func (d *dialer) dial(network string, u *url.URL, deadline time.Time) (net.Conn, error) {
	raw, err := (&net.Dialer{Deadline: deadline, KeepAliveConfig: keepAlive}).Dial(network, u.Host)
	if err != nil {
		return nil, err
	}
	c, err := d.greet(raw, u, deadline)
	if err != nil {
		_ = raw.Close() // the first error is the one to report
		return nil, fmt.Errorf("%s: %w", Redact(u.String()), err)
	}
	return c, raw.SetDeadline(time.Time{})
}

func (d *dialer) greet(raw net.Conn, u *url.URL, deadline time.Time) (net.Conn, error) {
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	r := readers.Get().(*bufio.Reader)
	r.Reset(raw)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("reading the server's greeting: %w", err)
	}
	greeting, offered, required, err := parseGreeting(line)
	if err != nil {
		return nil, err
	}
	must := needsTLS(u, raw.RemoteAddr())
	switch {
	case must && !offered:
		return nil, errors.New("the server offers no TLS: nothing is said to it in the clear, since it is not on this machine's loopback")
	case !must && !required:
		return &greeted{Conn: raw, first: bytes.NewReader(append(greeting, rest(r)...))}, nil
	case r.Buffered() > 0:
		return nil, errors.New("the server went on talking in the clear where TLS begins")
	}
	config := &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS13}
	if d.rootsFile != "" && (!d.rootsLater || exists(d.rootsFile)) {
		if config.RootCAs, err = readRoots(d.rootsFile); err != nil {
			return nil, err
		}
	}
	secure := tls.Client(raw, config)
	if err := secure.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &greeted{Conn: secure, first: bytes.NewReader(greeting)}, nil
}

// needsTLS reports whether the way to a server may leave this machine.
// "localhost" is believed where it leads to a loopback address.
func needsTLS(u *url.URL, addr net.Addr) bool {
	ip := net.ParseIP(u.Hostname())
	named := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	tcp, ok := addr.(*net.TCPAddr)
	return u.Scheme == "tls" || !named || !ok || !tcp.IP.IsLoopback()
}

// parseGreeting reads a server's INFO line and returns it without its words
// about TLS.
func parseGreeting(line []byte) (greeting []byte, offered, required bool, err error) {
	text, ok := bytes.CutPrefix(line, []byte("INFO "))
	if !ok {
		return nil, false, false, errors.New("it does not greet like a NATS server")
	}
	var info map[string]json.RawMessage
	if err := json.Unmarshal(text, &info); err != nil {
		return nil, false, false, fmt.Errorf("the server's greeting: %w", err)
	}
	required = string(info["tls_required"]) == "true"
	offered = required || string(info["tls_available"]) == "true"
	delete(info, "tls_required")
	delete(info, "tls_available")
	text, err = json.Marshal(info)
	if err != nil {
		return nil, false, false, fmt.Errorf("the server's greeting: %w", err)
	}
	return fmt.Appendf(nil, "INFO %s\r\n", text), offered, required, nil
}

// readers are used again, since a process may have thousands of connections that seek
// their server at once.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxInfo) }}

func rest(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered()) // never fails for what is buffered
	return b
}

func readRoots(path string) (*x509.CertPool, error) {
	text, err := durable.ReadTrusted(path, maxRoots)
	if err != nil {
		return nil, fmt.Errorf("reading the CA certificates of the bus: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no CA certificate (PEM) to know the bus by", path)
	}
	return pool, nil
}

// A greeted connection is one whose greeting was read already, and is read once
// more. As long as the login is not answered, it answers a server that asks whether there
// is still somebody: one that has thousands to let in asks in the middle of it, and the
// NATS client would take that for an error, leave, and come again.
type greeted struct {
	net.Conn
	first    *bytes.Reader
	begun    []byte // of what the server says to the login
	answered bool
}

const (
	ping = "PING\r\n"
	pong = "PONG\r\n"
)

func (g *greeted) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if g.first.Len() > 0 {
			return g.first.Read(b)
		}
		n, err := g.Conn.Read(b)
		if g.answered {
			return n, err
		}
		g.begun = append(g.begun, b[:n]...)
		for err == nil && bytes.HasPrefix(g.begun, []byte(ping)) {
			g.begun = g.begun[len(ping):]
			_, err = io.WriteString(g.Conn, pong) // the client says nothing before it has its answer
		}
		switch {
		case len(g.begun) == 0 && err != nil:
			return 0, err
		case err != nil || !strings.HasPrefix(ping, string(g.begun)):
			g.first, g.begun, g.answered = bytes.NewReader(g.begun), nil, true
		}
	}
}

// userInfo returns the name and the password in the URL that was dialled.
func (d *dialer) userInfo() (name, password string) {
	if u := d.user(); u != nil {
		if password, ok := u.Password(); ok {
			return u.Username(), password
		}
	}
	return "", ""
}

// token returns the token in the URL, which stands where a name would.
func (d *dialer) token() string {
	if u := d.user(); u != nil {
		if _, ok := u.Password(); !ok {
			return u.Username()
		}
	}
	return ""
}

func (d *dialer) user() *url.Userinfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		return nil
	}
	return d.last.User
}

// reached is the URL of the server, for people.
func (d *dialer) reached() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		return ""
	}
	return Redact(d.last.String())
}
