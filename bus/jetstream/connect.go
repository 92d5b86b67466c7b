// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options say how to reach the bus.
type Options struct {
	// URL is a NATS URL, such as nats://127.0.0.1:4222 or tls://bus.example:4222,
	// or several, separated by commas. If it is empty, URLFile is read at every
	// attempt to connect.
	//
	// Where a URL starts with tls://, or its host is not a loopback address, the
	// connection is by TLS 1.3 or not at all, and the server has to prove to be
	// that host. Of a cluster, the servers that are named are used.
	URL     string
	URLFile string
	// RootsFile holds the CA certificates (PEM) that the bus is known by, read at
	// every attempt to connect; "" means those of the system.
	RootsFile string
	// rootsLater says that the roots are the system's while there is no such file.
	rootsLater bool
	// Creds is the path of a NATS credentials file, read at every attempt to
	// connect; "" is none.
	Creds string
	// Monitor is where servers say how they write to the disk: the URLs of their
	// monitoring ports, with commas, or the path of a credentials file of their
	// system account; "" is nowhere. The embedded server says it by itself.
	Monitor string
	// Tenant is "default" if empty.
	Tenant string
	// Name tells the server who connects; "" is "keyturn".
	Name string
	// Logger gets a line when the connection is lost or found again; nil is
	// slog.Default.
	Logger *slog.Logger
}

// A conn is a connection, which a tenant's log and board share.
type conn struct {
	nc *nats.Conn
	js jetstream.JetStream

	user user     // whose credentials were given
	pins sync.Map // of name to *pin

	// failed is why the last attempt to connect failed.
	failed atomic.Pointer[error]
	// denied is the last request that the server did not allow. It does not
	// answer such a request.
	denied atomic.Pointer[denial]

	elsewhere *dialer // knows other servers; nil where the connection is not ours
	quiet     unanswered
}

// A denial is when and why a request was not allowed.
type denial struct {
	at  time.Time
	err error
}

// Connect returns a tenant's log over a connection of its own, which Close
// ends. It returns at once, whether the bus can be reached or not, and the
// connection is sought for as long as the log is open. Only unreadable
// credentials and malformed URLs are errors.
func Connect(o Options) (_ *Log, err error) {
	dialer := &dialer{url: o.URL, urlFile: o.URLFile, rootsFile: o.RootsFile, rootsLater: o.rootsLater}
	switch {
	case o.URL != "":
		if _, err := parseURLs(o.URL); err != nil {
			return nil, err
		}
	case o.URLFile == "":
		return nil, errors.New("bus: neither a URL nor a file that holds it is given")
	}
	c := &conn{elsewhere: dialer}
	options := append(c.options(cmp.Or(o.Logger, slog.Default()), dialer), nats.Name(cmp.Or(o.Name, "keyturn")))
	if o.Creds != "" {
		creds := &credentials{path: o.Creds}
		if c.user, err = creds.user(); err != nil {
			return nil, err
		}
		options = append(options, nats.UserJWT(creds.token, creds.sign), nats.CustomInboxPrefix(inboxPrefix(c.user.public)))
	}
	// The dialer knows better where to.
	nc, err := nats.Connect("nats://127.0.0.1:1", options...)
	if err != nil {
		return nil, fmt.Errorf("bus: connecting: %w", err)
	}
	c.nc = nc
	if c.js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: jetstream: %w", err)
	}
	l := newLog(c, cmp.Or(o.Tenant, "default"))
	l.options = o
	return l, nil
}

func (c *conn) options(logger *slog.Logger, dialer *dialer) []nats.Option {
	said := new(memory)
	return []nats.Option{
		nats.SetCustomDialer(dialer),
		nats.UserInfoHandler(dialer.userInfo),
		nats.TokenHandler(dialer.token),
		nats.SkipHostLookup(),
		nats.IgnoreDiscoveredServers(),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(int) time.Duration { return c.patience() }),
		nats.ReconnectBufSize(-1), // an append that was not sent is an error, not a surprise for later
		nats.IgnoreAuthErrorAbort(),
		nats.Timeout(connectTimeout),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(1), // at the second without an answer the connection ends
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && !said.before("lost: "+err.Error()) {
				logger.Warn("the bus cannot be reached; trying on", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if !errors.Is(err, nats.ErrNoServers) { // says less than the attempts before and after
				c.failed.Store(&err)
			}
		}),
		nats.ConnectHandler(func(*nats.Conn) { c.failed.Store(nil) }),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.failed.Store(nil)
			logger.Info("the bus is reached again", "url", dialer.reached())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				c.denied.Store(&denial{time.Now(), err})
			}
			if !said.before(err.Error()) {
				logger.Warn("the bus reports an error; it is not repeated for a minute", "error", err)
			}
		}),
	}
}

// pingEvery is how often the server is asked whether it is still there. One that
// hangs, or a middlebox that swallows what it takes, is given up after twice that time,
// so that all is well half a minute after; that the server's host is gone, or the way to
// it, the system finds out sooner (see dialer.dial). In a fleet that is current, these
// questions are most of what there is to do.
const pingEvery = 12 * time.Second

// A memory is of what was said not long ago: a server that refuses somebody does
// so at each of his attempts.
type memory struct {
	mu   sync.Mutex
	said map[string]time.Time // guarded by mu
}

// forget is how long something is not said again, and maxSaid how much is
// remembered.
const (
	forget  = time.Minute
	maxSaid = 100
)

// before reports whether a text was said less than a minute ago, and remembers
// it.
func (m *memory) before(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if last, ok := m.said[text]; ok && now.Sub(last) < forget {
		return true
	}
	if m.said == nil || len(m.said) >= maxSaid {
		m.said = make(map[string]time.Time)
	}
	m.said[text] = now
	return false
}

// Waits between attempts to connect. Who was refused is refused again, unless he
// gets other credentials.
const (
	reconnectWait = 250 * time.Millisecond
	refusedWait   = 10 * time.Second
)

// patience is how long to wait before the next attempt, with jitter: a fleet
// that lost its bus does not come back as one.
func (c *conn) patience() time.Duration {
	wait := reconnectWait
	if failed := c.failed.Load(); failed != nil && refused(*failed) {
		wait = refusedWait
	}
	return wait + rand.N(wait)
}

// refused reports whether the server did not let the user in.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAuthExpired)
}

// Connected implements bus.Conn.
func (c *conn) Connected(ctx context.Context) error {
	status := c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(status)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !c.nc.IsConnected() && !c.nc.IsClosed() && c.failed.Load() == nil && ctx.Err() == nil {
		select {
		case <-status:
		case <-tick.C: // a failed attempt has no channel
		case <-ctx.Done():
		}
	}
	return c.Check()
}

// Check implements bus.Conn.
func (c *conn) Check() error {
	if c.nc.IsConnected() {
		return nil
	}
	if failed := c.failed.Load(); failed != nil {
		return fmt.Errorf("not connected: %w", *failed)
	}
	return fmt.Errorf("not connected: %w", cmp.Or(c.nc.LastError(), errDisconnected))
}

// Close implements bus.Conn.
func (c *conn) Close() { c.nc.Close() }

// ask is a request. For a moment nobody answers one, while the server puts what an account
// may do from now on in the place of what it might before, as for a revocation: it takes
// out all ways to JetStream, and puts them in again (nats-server's UpdateAccountClaims).
func (c *conn) ask(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		answer, err := c.nc.RequestWithContext(ctx, subject, data)
		if !errors.Is(err, nats.ErrNoResponders) || wait > maxAsk {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// maxAsk is the longest wait for somebody to answer; with those before it, a third of a
// second.
const maxAsk = 160 * time.Millisecond

// explain says in plain words what a request failed with that could not even
// be sent, or was not answered.
func (c *conn) explain(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		if why := c.Check(); why != nil {
			return why
		}
	}
	if d := c.denied.Load(); d != nil && time.Since(d.at) < 2*setupTimeout && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("these credentials do not allow it: %w", d.err)
	}
	return err
}

// explained is explain, where the reason may be that the follower was ended.
func (c *conn) explained(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errReplaced) || errors.Is(cause, errDisconnected) {
		return cause
	}
	return c.explain(err)
}
