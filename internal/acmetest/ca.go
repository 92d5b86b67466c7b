// SPDX-License-Identifier: Apache-2.0

package acmetest

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"go.uber.org/goleak"
)

// Options say what a CA is like. The zero value is one without whims: no nonce is
// refused, no authorisation is used again, validation starts at once.
type Options struct {
	// DNS is what the CA asks. Nil: one of its own.
	DNS *DNS
	// Resolver is a name server, HOST:PORT, that it asks in the place of DNS; "" is
	// none.
	Resolver string
	// HTTPPort and TLSPort are where it validates http-01 and tls-alpn-01. 0: a
	// free port, to be read from the CA.
	HTTPPort, TLSPort int
	// NonceReject is how many of a hundred good nonces it refuses (99 at most), and
	// AuthzReuse how many of a hundred valid authorisations it uses again.
	NonceReject, AuthzReuse int
	// ChainLength is how many intermediates there are. 0 is one: Pebble has no chain
	// without.
	ChainLength int
	// AlternateRoots is how many other chains it offers.
	AlternateRoots int
	// ValidationDelay is the most that it waits before it validates: a random
	// number of whole seconds.
	ValidationDelay time.Duration
	// Profiles are the lifetimes of certificates by the name of the profile. Nil:
	// one, "default", of 90 days. Pebble draws one if the order names none.
	Profiles map[string]time.Duration
	// EAB are the keys (base64url) of external accounts, by their names. If there
	// are any, a new account needs one of them.
	EAB map[string]string
	// CAAIdentities are what the CA is called in CAA records. Nil:
	// "pebble.letsencrypt.org". Pebble does not look at such records.
	CAAIdentities []string
	// Blocked are domains that it does not sign for.
	Blocked []string
	// RetryAfter is how many seconds a client is told to wait between two looks at
	// an order or an authorisation; 0: it is told nothing.
	RetryAfter int
	// NoValidation lets every challenge succeed without a look.
	NoValidation bool
	// Log is where Pebble logs to. Nil: nowhere.
	Log io.Writer
}

// CA is a running Pebble.
type CA struct {
	// DNS is what it asks, and HTTPPort and TLSPort are where it validates.
	DNS               *DNS
	HTTPPort, TLSPort int

	server     *httptest.Server
	management http.Handler
	pebble     *ca.CAImpl
	store      *db.MemoryStore
	counted    *counter

	mu      sync.Mutex
	handler http.Handler // guarded by mu
}

// environment guards Pebble's variables, which belong to the whole process and are
// read while it starts.
var environment sync.Mutex

// Start starts a CA, which ends with the test.
func Start(tb testing.TB, o Options) *CA {
	tb.Helper()
	if o.DNS == nil {
		o.DNS = StartDNS(tb)
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	c := &CA{DNS: o.DNS, HTTPPort: port(tb, o.HTTPPort), TLSPort: port(tb, o.TLSPort)}
	front, err := c.pebbleFor(o)
	if err != nil {
		tb.Fatal(err)
	}
	c.management = front.ManagementHandler()
	c.counted = &counter{next: front.Handler(), store: c.store, orders: make(map[string]int)}
	c.handler = c.counted
	c.server = httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it, which tests are about
	c.server.EnableHTTP2 = true                           // as public CAs do
	c.server.StartTLS()
	tb.Cleanup(c.server.Close)
	return c
}

func (c *CA) pebbleFor(o Options) (*wfe.WebFrontEndImpl, error) {
	environment.Lock()
	defer environment.Unlock()
	restore := setenv(map[string]string{
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(o.NonceReject),
		"PEBBLE_VA_NOSLEEP":      flag(o.ValidationDelay < time.Second),
		"PEBBLE_VA_SLEEPTIME":    strconv.Itoa(int(o.ValidationDelay/time.Second) + 1), // it draws below that
		"PEBBLE_VA_ALWAYS_VALID": flag(o.NoValidation),
	})
	defer restore()
	logger := log.New(o.Log, "pebble ", log.Lmicroseconds)
	store := db.NewMemoryStore()
	c.store = store
	for id, key := range o.EAB {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			return nil, err
		}
	}
	for _, domain := range o.Blocked {
		if err := store.AddBlockedDomain(domain); err != nil {
			return nil, err
		}
	}
	if o.CAAIdentities == nil {
		o.CAAIdentities = []string{"pebble.letsencrypt.org"}
	}
	c.pebble = ca.New(logger, store, "", "ecdsa", o.AlternateRoots, max(o.ChainLength, 1), profiles(o.Profiles))
	validator := va.New(logger, c.HTTPPort, c.TLSPort, false, cmp.Or(o.Resolver, o.DNS.Addr()), store)
	front := wfe.New(logger, store, validator, c.pebble, o.CAAIdentities, false, len(o.EAB) > 0, o.RetryAfter, o.RetryAfter)
	reuse(&front, o.AuthzReuse)
	return &front, nil
}

// reuse sets how many of a hundred valid authorisations are used again. Pebble's own
// variable cannot say none: it uses one more than that.
func reuse(front *wfe.WebFrontEndImpl, percent int) {
	field := reflect.ValueOf(front).Elem().FieldByName("authzReusePercent")
	*(*int)(unsafe.Pointer(field.UnsafeAddr())) = percent - 1
}

func profiles(lifetimes map[string]time.Duration) map[string]ca.Profile {
	if lifetimes == nil {
		lifetimes = map[string]time.Duration{"default": 90 * 24 * time.Hour}
	}
	all := make(map[string]ca.Profile)
	for name, lifetime := range lifetimes {
		all[name] = ca.Profile{Description: "a test's", ValidityPeriod: uint64(lifetime / time.Second)}
	}
	return all
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// setenv sets variables; restore sets them back.
func setenv(to map[string]string) (restore func()) {
	before := make(map[string]string)
	for name, value := range to {
		if old, ok := os.LookupEnv(name); ok {
			before[name] = old
		}
		_ = os.Setenv(name, value) // fails for names that are none
	}
	return func() {
		for name := range to {
			if old, ok := before[name]; ok {
				_ = os.Setenv(name, old)
			} else {
				_ = os.Unsetenv(name)
			}
		}
	}
}

// port returns a port that is free now, unless one is given.
func port(tb testing.TB, given int) int {
	tb.Helper()
	if given != 0 {
		return given
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Directory is the https URL to configure.
func (c *CA) Directory() string { return c.server.URL + wfe.DirectoryPath }

// WebRoots are the PEM certificates by which the CA's web server is known.
func (c *CA) WebRoots() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw}))
}

// WebPool is WebRoots, for a tls.Config.
func (c *CA) WebPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.server.Certificate())
	return pool
}

// Roots are those of the certificates that it signs: that of the chain it prefers
// first, then those of the alternate ones.
func (c *CA) Roots() []*x509.Certificate {
	var all []*x509.Certificate
	for i := range c.pebble.GetNumberOfRootCerts() {
		all = append(all, c.pebble.GetRootCert(i).Cert)
	}
	return all
}

// IssuerRoots is Roots, for clients that check what it signed.
func (c *CA) IssuerRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range c.Roots() {
		pool.AddCert(root)
	}
	return pool
}

// IgnorePebble is for goleak: the goroutine of Pebble's validator that nothing
// ends.
func IgnorePebble() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks")
}
