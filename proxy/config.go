// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/keyturn/keyturn"
)

// What the zero values of a Config stand for.
const (
	// DefaultIdentityHeader is the name of the header with a client's identity.
	DefaultIdentityHeader = "X-Client-Identity"
	// DefaultHeaderTimeout is what the handshake has, and then the header of a request.
	DefaultHeaderTimeout = 10 * time.Second
	// DefaultMaxHeader is what most servers take, in bytes, several times over.
	DefaultMaxHeader = 64 << 10
	// DefaultIdleTimeout is that of many load balancers, a minute, and some more: the
	// side that sends requests should be the one to give a connection up.
	DefaultIdleTimeout = 2 * time.Minute
	// DefaultStallTimeout, DefaultAnswerTimeout are nginx' for bodies and services.
	DefaultStallTimeout  = time.Minute
	DefaultAnswerTimeout = time.Minute
	// DefaultTargetIdle is less than the five seconds after which Node.js, Apache and
	// uvicorn close connections: a request must not meet one that is just closing.
	DefaultTargetIdle = 4 * time.Second
	// DefaultDrainDelay is what a load balancer needs that looks every two seconds and
	// goes by two looks.
	DefaultDrainDelay = 5 * time.Second
	// DefaultDrainTimeout is that of Kubernetes for all of a pod's end.
	DefaultDrainTimeout = 30 * time.Second
)

// A Config says what to pass on to whom. To and TLS are required; negative times mean
// none, or for ever.
type Config struct {
	// To is the service.
	To Target

	// TLS is for clients. Whether they have to show certificates is said there: an identity
	// is passed on if it was verified. It should be made by keyturn.Trust if the CAs of
	// clients can change.
	TLS *tls.Config

	// Store knows the connections, so that Store.Drain ends them; nil is a new one. It is
	// the one that has the certificates, if any has.
	Store *keyturn.Store

	// TrustForwarded are the addresses of proxies whose X-Forwarded-For, -Host and -Proto
	// are believed.
	TrustForwarded []netip.Prefix

	// IdentityHeader is the name of the header with the identity of a verified client;
	// "" is DefaultIdentityHeader.
	IdentityHeader string

	// MaxBody bounds the body of a request, in bytes; 0 is no bound.
	MaxBody int64
	// MaxHeader bounds the header of a request, in bytes; 0 is DefaultMaxHeader.
	MaxHeader int

	// HeaderTimeout bounds the handshake and the header of a request, StallTimeout the
	// time in which nothing moves to or from a client of a request under way, IdleTimeout
	// that between two requests. 0 is the default of each.
	HeaderTimeout, StallTimeout, IdleTimeout time.Duration

	// AnswerTimeout bounds the time from a request's end to the header of the service's
	// answer, and that for which the service takes nothing of a request before that; 0 is
	// DefaultAnswerTimeout.
	AnswerTimeout time.Duration
	// TargetIdle is how long a connection to the service is kept for the next request;
	// 0 is DefaultTargetIdle.
	TargetIdle time.Duration

	// DrainDelay is how long Drain accepts connections, for those who have not been told
	// yet, and DrainTimeout how long requests then get to end. 0 is the default of each.
	DrainDelay, DrainTimeout time.Duration

	// Logger is told of the service's outages, each once, and at debug of clients'
	// failures; nil is slog.Default.
	Logger *slog.Logger
}

// complete checks the configuration, and fills in what it leaves open.
func (c Config) complete() (Config, error) {
	if c.To.address == "" {
		return c, errors.New("there is no target: set To")
	}
	if c.TLS == nil {
		return c, errors.New("there is no TLS configuration")
	}
	if c.Store == nil {
		c.Store = new(keyturn.Store)
	}
	if c.IdentityHeader == "" {
		c.IdentityHeader = DefaultIdentityHeader
	}
	if err := checkIdentityHeader(c.IdentityHeader); err != nil {
		return c, err
	}
	if c.MaxBody < 0 || c.MaxHeader < 0 {
		return c, fmt.Errorf("MaxBody is %d and MaxHeader %d: they cannot be negative", c.MaxBody, c.MaxHeader)
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = DefaultMaxHeader
	}
	for d, assumed := range map[*time.Duration]time.Duration{
		&c.HeaderTimeout: DefaultHeaderTimeout, &c.StallTimeout: DefaultStallTimeout, &c.IdleTimeout: DefaultIdleTimeout,
		&c.AnswerTimeout: DefaultAnswerTimeout, &c.TargetIdle: DefaultTargetIdle,
		&c.DrainDelay: DefaultDrainDelay, &c.DrainTimeout: DefaultDrainTimeout,
	} {
		if *d == 0 {
			*d = assumed
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
