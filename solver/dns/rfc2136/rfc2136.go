// SPDX-License-Identifier: Apache-2.0

// Package rfc2136 sets records by dynamic updates (RFC 2136) that are signed with
// a key both sides know (TSIG, RFC 8945), as BIND, Knot DNS and PowerDNS take them.
package rfc2136

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/keyturn/keyturn/solver/dns"
)

const (
	defaultTTL       = 60 // seconds
	maxTTL           = 86400
	defaultAlgorithm = "hmac-sha256"
	// exchangeTime is for one update, which the server writes down.
	exchangeTime = 15 * time.Second
	// fudge is how far the clocks may differ, in seconds (RFC 8945 section 10).
	fudge = 300
	// minKey is the least that a key has, in bytes: half of what RFC 8945 section 8
	// recommends for hmac-sha256.
	minKey = 16
)

// Config is which server, and who may change it.
type Config struct {
	Server       string // HOST:PORT of the zone's primary
	KeyName      string
	KeySecret    dns.Secret // base64
	KeyAlgorithm string     // hmac-sha256, which "" is, or hmac-sha512
	Zone         string     // to update; "" is the one that the record is in
	TTL          int        // of records, in seconds; 0 is 60
}

// A Provider adds and takes away exactly the records that it is told.
type Provider struct {
	c       Config
	keyName string // canonical
}

var _ dns.Keeper = (*Provider)(nil)

// Format prints where the zone is updated, and by which key, but not the key.
func (p *Provider) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "%s by the key %s", p.c.Server, p.c.KeyName)
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) (*Provider, error) {
	if host, port, err := net.SplitHostPort(c.Server); err != nil || host == "" || port == "" {
		return nil, errors.New("server must be HOST:PORT, as in ns1.example.com:53")
	}
	if _, ok := mdns.IsDomainName(c.KeyName); !ok || c.KeyName == "" {
		return nil, errors.New("key_name is no name of a key")
	}
	if key, err := base64.StdEncoding.DecodeString(string(c.KeySecret)); err != nil || len(key) < minKey {
		return nil, fmt.Errorf("key_secret must be the base64 of at least %d bytes", minKey)
	}
	switch c.KeyAlgorithm {
	case "":
		c.KeyAlgorithm = defaultAlgorithm
	case "hmac-sha256", "hmac-sha512":
	default:
		return nil, fmt.Errorf("key_algorithm is %.40q; known are hmac-sha256, hmac-sha512", c.KeyAlgorithm)
	}
	if _, ok := mdns.IsDomainName(c.Zone); !ok && c.Zone != "" {
		return nil, fmt.Errorf("zone %.80q is no domain name", c.Zone)
	}
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	if c.TTL < 0 || c.TTL > maxTTL {
		return nil, fmt.Errorf("ttl must be from 1 to %d seconds", maxTTL)
	}
	return &Provider{c, mdns.CanonicalName(c.KeyName)}, nil
}

// KeepsOthers reports true: an update names the record that goes.
func (p *Provider) KeepsOthers() bool { return true }

// Present adds the record.
func (p *Provider) Present(ctx context.Context, r dns.Record) error {
	return p.update(ctx, r, (*mdns.Msg).Insert)
}

// CleanUp takes the record away. That it is not there is no error.
func (p *Provider) CleanUp(ctx context.Context, r dns.Record) error {
	return p.update(ctx, r, (*mdns.Msg).Remove)
}

func (p *Provider) update(ctx context.Context, r dns.Record, change func(*mdns.Msg, []mdns.RR)) error {
	zone := p.c.Zone
	if zone == "" {
		zone = r.Zone
	}
	if zone == "" {
		return errors.New("the zone that the name is in is not known; give the setting zone")
	}
	if !mdns.IsSubDomain(mdns.Fqdn(zone), mdns.Fqdn(r.Name)) {
		return fmt.Errorf("%s is not in the zone %s that the solver updates", r.Name, zone)
	}
	m := new(mdns.Msg).SetUpdate(mdns.CanonicalName(zone))
	change(m, []mdns.RR{&mdns.TXT{
		Hdr: mdns.RR_Header{Name: mdns.Fqdn(r.Name), Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: uint32(p.c.TTL)},
		Txt: []string{r.Value},
	}})
	if err := p.send(ctx, m); err != nil {
		return fmt.Errorf("updating the zone %s at %s with the key %s: %w", zone, p.c.Server, p.c.KeyName, err)
	}
	return nil
}

func (p *Provider) send(ctx context.Context, m *mdns.Msg) error {
	m.SetTsig(p.keyName, p.c.KeyAlgorithm+".", fudge, time.Now().Unix())
	c := &mdns.Client{Net: "tcp", Timeout: exchangeTime, TsigSecret: map[string]string{p.keyName: string(p.c.KeySecret)}}
	r, _, err := c.ExchangeContext(ctx, m, p.c.Server)
	if err != nil && (r == nil || r.Rcode == mdns.RcodeSuccess) {
		return err
	}
	// A server that does not take the signature answers without one.
	if r.Rcode != mdns.RcodeSuccess {
		return refusal(r)
	}
	if !r.Response || r.IsTsig() == nil {
		return errors.New("the answer is not signed: it may be somebody else's")
	}
	return nil
}

// refusal says what a server's code means, and what to do.
func refusal(r *mdns.Msg) error {
	code := r.Rcode
	if t := r.IsTsig(); t != nil && t.Error != 0 {
		code = int(t.Error)
	}
	name, ok := mdns.RcodeToString[code]
	if !ok {
		name = fmt.Sprintf("code %d", code)
	}
	switch code {
	case mdns.RcodeBadSig, mdns.RcodeBadKey:
		return fmt.Errorf("it does not know the key (%s): see that name, secret and algorithm are the server's", name)
	case mdns.RcodeBadTime:
		return fmt.Errorf("its clock and this one differ by more than %d seconds (%s)", fudge, name)
	case mdns.RcodeRefused:
		return fmt.Errorf("it refuses (%s): see that the key may update TXT records of this zone", name)
	case mdns.RcodeNotAuth, mdns.RcodeNotZone:
		return fmt.Errorf("it is not the primary of the zone, or does not take the key (%s): see the settings server, zone and key_name", name)
	}
	return fmt.Errorf("it answers %s", name)
}
