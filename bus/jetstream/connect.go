// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/internal/durable"
)

// Names of the files in a data directory or a joined directory.
const (
	// URLFile holds the URL of the bus. A server that takes whatever port is
	// free writes it at each start.
	URLFile = "bus.url"
	// ReplicaCreds and ManagerCreds hold NATS credentials, mode 0600.
	ReplicaCreds = "replica.creds"
	ManagerCreds = "manager.creds"
)

// Options say how to reach the bus.
type Options struct {
	// URL is a NATS URL, such as nats://127.0.0.1:4222. If it is empty, URLFile
	// is read at every attempt to connect.
	URL     string
	URLFile string
	// Creds is the path of a NATS credentials file; "" is none.
	Creds string
	// Tenant is "default" if empty.
	Tenant string
	// Name tells the server who connects; "" is "keyturn".
	Name string
	// Logger gets a line when the connection is lost or found again; nil is
	// slog.Default.
	Logger *slog.Logger
}

// Connect returns a tenant's log over a connection of its own, which Close
// ends. It returns at once, whether the bus can be reached or not, and the
// connection is sought for as long as the log is open. Only unreadable
// credentials and malformed URLs are errors.
func Connect(o Options) (*Log, error) {
	logger := cmp.Or(o.Logger, slog.Default())
	l := &Log{tenant: cmp.Or(o.Tenant, "default")}
	options := []nats.Option{
		nats.Name(cmp.Or(o.Name, "keyturn")),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.ReconnectBufSize(-1), // an append that was not sent is an error, not a surprise for later
		nats.IgnoreAuthErrorAbort(),
		nats.Timeout(requestTimeout),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				logger.Warn("the bus cannot be reached; trying on", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if !errors.Is(err, nats.ErrNoServers) { // says less than the attempts before and after
				l.failed.Store(&err)
			}
		}),
		nats.ConnectHandler(func(*nats.Conn) { l.failed.Store(nil) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			l.failed.Store(nil)
			logger.Info("the bus is reached again", "url", Redact(nc.ConnectedUrl()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				l.denied.Store(&denial{time.Now(), err})
			}
			logger.Warn("the bus reports an error", "error", err)
		}),
	}
	if o.Creds != "" {
		creds := credentials(o.Creds)
		user, err := creds.user()
		if err != nil {
			return nil, err
		}
		options = append(options, nats.UserJWT(creds.token, creds.sign), nats.CustomInboxPrefix(InboxPrefix(user)))
	}
	target := o.URL
	switch {
	case target != "":
		if err := checkURL(target); err != nil {
			return nil, err
		}
	case o.URLFile != "":
		// The server's address changes from start to start: the file is read at
		// every attempt, and the URL given here is not used.
		target = "nats://127.0.0.1:1"
		options = append(options, nats.SetCustomDialer(urlFileDialer(o.URLFile)), nats.IgnoreDiscoveredServers())
	default:
		return nil, errors.New("bus: neither a URL nor a file that holds it is given")
	}
	nc, err := nats.Connect(target, options...)
	if err != nil {
		return nil, fmt.Errorf("bus: connecting to %s: %w", Redact(target), err)
	}
	l.nc = nc
	if l.js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: jetstream: %w", err)
	}
	return l, nil
}

// ConnectDir is Connect with the URL and a replica's credentials that lie in a
// joined directory.
func ConnectDir(dir string) (*Log, error) {
	return Connect(Options{URLFile: filepath.Join(dir, URLFile), Creds: filepath.Join(dir, ReplicaCreds)})
}

// InboxPrefix is what the answers' subjects of a user start with. Each user may
// listen to his own only.
func InboxPrefix(user string) string { return "_INBOX_" + user }

// credentials is the path of a NATS credentials file. It is read at every
// attempt to connect, so that it may be replaced. (nats.UserCredentials would
// expand "~" and "$" in the path.)
type credentials string

func (c credentials) read() ([]byte, error) {
	text, err := durable.ReadPrivate(string(c), 64<<10)
	if err != nil {
		return nil, fmt.Errorf("reading the bus credentials: %w", err)
	}
	return text, nil
}

// token returns the user's JWT.
func (c credentials) token() (string, error) {
	text, err := c.read()
	if err != nil {
		return "", err
	}
	defer clear(text)
	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil {
		return "", fmt.Errorf("reading the bus credentials %s: %w", string(c), err)
	}
	return token, nil
}

// sign signs the server's challenge.
func (c credentials) sign(nonce []byte) ([]byte, error) {
	text, err := c.read()
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading the bus credentials %s: %w", string(c), err)
	}
	defer key.Wipe()
	return key.Sign(nonce)
}

// user returns the user's public key.
func (c credentials) user() (string, error) {
	token, err := c.token()
	if err != nil {
		return "", err
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return "", fmt.Errorf("reading the bus credentials %s: %w", string(c), err)
	}
	return claims.Subject, nil
}

func checkURL(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return fmt.Errorf("bus: %q is not a URL of the form nats://HOST:PORT or tls://HOST:PORT", Redact(part))
		}
	}
	return nil
}

// Redact takes everything secret out of a list of URLs: passwords, and tokens,
// which stand where a name would.
func Redact(list string) string {
	var out []string
	for part := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil {
			out = append(out, "[malformed URL]")
			continue
		}
		if u.User != nil {
			u.User = url.User("xxxxx")
		}
		out = append(out, u.String())
	}
	return strings.Join(out, ",")
}

// urlFileDialer dials the address that stands in the file at that moment.
type urlFileDialer string

// Dial implements nats.CustomDialer.
func (file urlFileDialer) Dial(network, _ string) (net.Conn, error) {
	text, err := durable.ReadFile(string(file), 4096)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no bus runs here: %s does not exist", string(file))
	}
	if err != nil {
		return nil, err
	}
	target := strings.TrimSpace(string(text))
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "nats" || u.Port() == "" {
		return nil, fmt.Errorf("%s holds %q, not a URL of the form nats://HOST:PORT", string(file), Redact(target))
	}
	return net.DialTimeout(network, u.Host, requestTimeout)
}
