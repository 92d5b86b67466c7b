// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// Proxy is the configuration of "keyturn proxy", which [ProxySources] reads. A time of
// less than zero means none.
type Proxy struct {
	Listen    []string // HOST:PORT
	To        string   // the service
	Reuseport bool

	Admin       string // HOST:PORT; empty: none
	AdminRemote bool

	Cert, Key string // files
	Dir       string // a joined directory

	Issuer      *Issuer
	Names       []string // patterns of those that certificates may be issued for
	Cache       string   // directory
	KeyType     issuer.KeyType
	Lifetime    Duration
	RenewBefore Duration

	ClientAuth     string // "none", "request" or "require"
	ClientCA       string // file or directory
	AllowPeers     []string
	IdentityHeader string
	TrustForwarded []netip.Prefix

	MaxBody   int64
	MaxHeader int

	HeaderTimeout, StallTimeout, IdleTimeout time.Duration
	AnswerTimeout, TargetIdle                time.Duration
	DrainDelay, DrainTimeout                 time.Duration

	Log Log
}

// A ProxySetting is one of the proxy's: a key of its file, from which the names of its
// flag, drain-timeout for drain_timeout, and its variable, KEYTURN_PROXY_DRAIN_TIMEOUT,
// follow.
type ProxySetting struct {
	Key     string
	Default string // as text; empty: none
	Usage   string // for people; a word in back quotes stands for the value
	List    bool   // it may be given several times; a variable has commas between
	Switch  bool   // true or false

	set func(p *Proxy, values []string) error
}

// Flag is the name of the setting's flag, without the hyphens before it.
func (s ProxySetting) Flag() string { return strings.ReplaceAll(s.Key, "_", "-") }

// ProxySettings lists all, in the order in which help shows them.
func ProxySettings() []ProxySetting { return slices.Clone(proxySettings) }

var proxySettings = []ProxySetting{
	{
		Key: "listen", Default: ":443", List: true, Usage: "`HOST:PORT` to serve; may be given several times. Sockets of systemd go before it",
		set: each(listenAddress, func(p *Proxy) *[]string { return &p.Listen }),
	},
	{
		Key: "to", Usage: "the service: `HOST:PORT`, http://HOST:PORT, h2c://HOST:PORT or unix:PATH",
		set: word(func(p *Proxy) *string { return &p.To }),
	},
	{
		Key: "cert", Usage: "`FILE` with the certificate and its chain, as PEM; read again when it changes",
		set: word(func(p *Proxy) *string { return &p.Cert }),
	},
	{
		Key: "key", Usage: "`FILE` with the private key of --cert",
		set: word(func(p *Proxy) *string { return &p.Key }),
	},
	{
		Key: "dir", Usage: "`DIRECTORY` that \"keyturn replica join\" has joined: certificates come over the bus",
		set: word(func(p *Proxy) *string { return &p.Dir }),
	},
	{Key: "issuer", Usage: "`TYPE` of CA that certificates are asked of when they are needed, as in the shared configuration"},
	{Key: "issuer_set", List: true, Usage: "a setting of --issuer, `KEY=VALUE`, as in the shared configuration: auth.method=approle"},
	{
		Key: "name", List: true, Usage: "`NAME` that --issuer may be asked for: a name, *.example.com, an IP address or a range of them; a URI is part of every certificate",
		set: each(notEmpty, func(p *Proxy) *[]string { return &p.Names }),
	},
	{
		Key: "cache", Usage: "`DIRECTORY` that keeps what --issuer has signed, with private keys, over restarts",
		set: word(func(p *Proxy) *string { return &p.Cache }),
	},
	{
		Key: "key_type", Default: string(issuer.ECDSAP256), Usage: "`KIND` of key for --issuer",
		set: one(issuer.ParseKeyType, func(p *Proxy) *issuer.KeyType { return &p.KeyType }),
	},
	{
		Key: "lifetime", Usage: "`TIME` that --issuer is asked for (default: what it gives)",
		set: one(ParseDuration, func(p *Proxy) *Duration { return &p.Lifetime }),
	},
	{
		Key: "renew_before", Usage: "`TIME` before its end at which a certificate of --issuer is renewed (default: a third of its life)",
		set: one(ParseDuration, func(p *Proxy) *Duration { return &p.RenewBefore }),
	},
	{
		Key: "client_auth", Default: "none", Usage: "`WHAT` is asked of clients: none, request or require a certificate",
		set: checked(oneOf("none", "request", "require"), func(p *Proxy) *string { return &p.ClientAuth }),
	},
	{
		Key: "client_ca", Usage: "`FILE` or directory with the CAs of clients; read again when it changes",
		set: word(func(p *Proxy) *string { return &p.ClientCA }),
	},
	{
		Key: "allow_peer", List: true, Usage: "`NAME` that a client's certificate must have one of: www.example.com, *.example.com, spiffe://example.org/ns/*/sa/web",
		set: each(notEmpty, func(p *Proxy) *[]string { return &p.AllowPeers }),
	},
	{
		Key: "identity_header", Default: "X-Client-Identity", Usage: "`HEADER` that tells the service the name of a verified client",
		set: word(func(p *Proxy) *string { return &p.IdentityHeader }),
	},
	{
		Key: "trust_forwarded", List: true, Usage: "`RANGE` of addresses of proxies whose X-Forwarded-For is believed: 10.0.0.0/8",
		set: setRanges,
	},
	{
		Key: "max_body", Default: "none", Usage: "`SIZE` of the largest request, such as 10MiB, or none",
		set: one(parseSize(math.MaxInt64), func(p *Proxy) *int64 { return &p.MaxBody }),
	},
	{
		Key: "max_header", Default: "64KiB", Usage: "`SIZE` of the largest header",
		set: one(func(s string) (int, error) {
			n, err := parseSize(16 << 20)(s)
			if err == nil && n < 1<<10 {
				err = fmt.Errorf("%.40q is not a size from 1KiB to 16MiB", s)
			}
			return int(n), err
		}, func(p *Proxy) *int { return &p.MaxHeader }),
	},
	{
		Key: "header_timeout", Default: "10s", Usage: "`TIME` for the handshake, and for a request's header",
		set: one(span, func(p *Proxy) *time.Duration { return &p.HeaderTimeout }),
	},
	{
		Key: "stall_timeout", Default: "1m", Usage: "`TIME` that a client may let a request or an answer stand still, or none",
		set: one(spanOrNone, func(p *Proxy) *time.Duration { return &p.StallTimeout }),
	},
	{
		Key: "idle_timeout", Default: "2m", Usage: "`TIME` that a connection is kept for the next request",
		set: one(span, func(p *Proxy) *time.Duration { return &p.IdleTimeout }),
	},
	{
		Key: "answer_timeout", Default: "1m", Usage: "`TIME` that the service has until it begins to answer, or none",
		set: one(spanOrNone, func(p *Proxy) *time.Duration { return &p.AnswerTimeout }),
	},
	{
		Key: "target_idle", Default: "4s", Usage: "`TIME` that a connection to the service is kept, less than the service keeps it, or none",
		set: one(spanOrNone, func(p *Proxy) *time.Duration { return &p.TargetIdle }),
	},
	{
		Key: "drain_delay", Default: "5s", Usage: "`TIME` after SIGTERM in which connections are still taken, for load balancers to notice, or none",
		set: one(spanOrNone, func(p *Proxy) *time.Duration { return &p.DrainDelay }),
	},
	{
		Key: "drain_timeout", Default: "30s", Usage: "`TIME` after that for requests to end before they are cut off",
		set: one(span, func(p *Proxy) *time.Duration { return &p.DrainTimeout }),
	},
	{
		Key: "reuseport", Switch: true, Usage: "share the ports with a successor, to which new connections go as soon as it serves (Linux)",
		set: flip(func(p *Proxy) *bool { return &p.Reuseport }),
	},
	{
		Key: "admin", Default: "127.0.0.1:9180", Usage: "loopback `HOST:PORT` of /healthz, /readyz and /metrics, or none",
		set: checked(listenAddressOrNone, func(p *Proxy) *string { return &p.Admin }),
	},
	{
		Key: "admin_remote", Switch: true, Usage: "let --admin be an address that others reach: what is said there is not encrypted, and anybody may ask",
		set: flip(func(p *Proxy) *bool { return &p.AdminRemote }),
	},
	{
		Key: "log_format", Default: "text", Usage: "text or json",
		set: checked(oneOf("text", "json"), func(p *Proxy) *string { return &p.Log.Format }),
	},
	{
		Key: "log_level", Default: "info", Usage: "debug, info, warn or error",
		set: checked(oneOf("debug", "info", "warn", "error"), func(p *Proxy) *string { return &p.Log.Level }),
	},
}

// checked sets text that passes a check.
func checked(check func(string) error, field func(*Proxy) *string) func(*Proxy, []string) error {
	return func(p *Proxy, values []string) error {
		*field(p) = values[0]
		return check(values[0])
	}
}

func word(field func(*Proxy) *string) func(*Proxy, []string) error { return checked(notEmpty, field) }

// each sets a list of texts that pass a check.
func each(check func(string) error, field func(*Proxy) *[]string) func(*Proxy, []string) error {
	return func(p *Proxy, values []string) error {
		*field(p) = values
		for _, v := range values {
			if err := check(v); err != nil {
				return err
			}
		}
		return nil
	}
}

// one sets what is made of a text.
func one[T any](read func(string) (T, error), field func(*Proxy) *T) func(*Proxy, []string) error {
	return func(p *Proxy, values []string) (err error) {
		*field(p), err = read(values[0])
		return err
	}
}

func flip(field func(*Proxy) *bool) func(*Proxy, []string) error {
	return one(func(s string) (bool, error) {
		if s != "true" && s != "false" {
			return false, fmt.Errorf("%.40q is neither true nor false", s)
		}
		return s == "true", nil
	}, field)
}

func setRanges(p *Proxy, values []string) error {
	p.TrustForwarded = nil
	for _, v := range values {
		r, err := netip.ParsePrefix(v)
		if err != nil {
			a, bad := netip.ParseAddr(v)
			if bad != nil {
				return fmt.Errorf("%.80q is not a range of addresses, such as 10.0.0.0/8", v)
			}
			r = netip.PrefixFrom(a, a.BitLen())
		}
		p.TrustForwarded = append(p.TrustForwarded, r.Masked())
	}
	return nil
}

func span(s string) (time.Duration, error) {
	d, err := ParseDuration(s)
	return time.Duration(d), err
}

func spanOrNone(s string) (time.Duration, error) {
	if s == "none" {
		return -1, nil
	}
	d, err := span(s)
	if err != nil {
		err = fmt.Errorf("%w; or none", err)
	}
	return d, err
}

func listenAddressOrNone(s string) error {
	if s == "none" {
		return nil
	}
	return listenAddress(s)
}

// parseSize reads a number of bytes, up to most; "none" is 0.
func parseSize(most int64) func(string) (int64, error) {
	return func(s string) (int64, error) {
		if s == "none" {
			return 0, nil
		}
		digits, unit := s, int64(1)
		for i, suffix := range []string{"KiB", "MiB", "GiB"} {
			if before, ok := strings.CutSuffix(s, suffix); ok {
				digits, unit = before, 1<<(10*(i+1))
			}
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 1 || n > most/unit {
			return 0, fmt.Errorf("%.40q is not a size, such as 10MiB, 64KiB or 1000", s)
		}
		return n * unit, nil
	}
}

// check finds what does not go together.
func (p *Proxy) check() error {
	sources := 0
	for _, given := range []bool{p.Cert != "" || p.Key != "", p.Dir != "", p.Issuer != nil} {
		if given {
			sources++
		}
	}
	switch {
	case p.To == "":
		return errors.New("--to is missing: the service to pass requests on to, such as localhost:8080")
	case sources != 1:
		return errors.New("certificates come from one place: give --cert and --key, or --dir, or --issuer")
	case (p.Cert == "") != (p.Key == ""):
		return errors.New("--cert and --key go together")
	case p.Issuer != nil && len(p.Names) == 0:
		return errors.New("--name is missing: without it, anybody who connects could have --issuer sign any name")
	case p.Issuer == nil && (len(p.Names) > 0 || p.Cache != "" || p.Lifetime != 0 || p.RenewBefore != 0):
		return errors.New("--name, --cache, --lifetime and --renew-before go with --issuer")
	case p.ClientAuth == "none" && (p.ClientCA != "" || len(p.AllowPeers) > 0):
		return errors.New("--client-ca and --allow-peer go with --client-auth request or require")
	case p.ClientAuth != "none" && p.ClientCA == "":
		return errors.New("--client-ca is missing: who vouches for the clients that --client-auth asks for certificates")
	case p.AdminRemote && p.Admin == "none":
		return errors.New("--admin-remote goes with an address for --admin")
	case p.Reuseport && p.DrainDelay < time.Second:
		return errors.New("--drain-delay has to be a second or more with --reuseport: connections that are being made when the successor comes have to be taken")
	}
	return nil
}
