// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Local is the configuration of one process. All fields may be empty, which
// stands for "not set"; [Sources] fills in the defaults.
type Local struct {
	Data       string // data directory; a relative one starts in the working directory
	Tenant     string // namespace on the bus
	Bus        string // URL of a bus elsewhere; without it, the embedded one is run
	BusMonitor string // where NATS servers of one's own say how they write to the disk
	NATS       string // listen address of the embedded bus, HOST:PORT; port 0 picks a free one
	Tenants    string // tenants with accounts of their own on the embedded bus, with commas
	Advertise  string // names and addresses by which other hosts reach the embedded bus, with commas
	HTTP       string // listen address of metrics and health, HOST:PORT
	CheckIn    CheckIn
	Log        Log
}

// CheckIn says where a manager reports that it is alive: a dead-man's switch.
type CheckIn struct {
	URL string // https://…, or http:// on loopback
	TTL string // a Duration: without another report for that long, something is wrong
}

// Log says what logs look like.
type Log struct {
	Format string // "text" or "json"
	Level  string // "debug", "info", "warn" or "error": the least that is logged
}

// A setting is a field of Local: its key in the file, from which the names of
// its flag and variable follow.
type setting struct {
	key   string
	field func(*Local) *string
	check func(string) error
}

var settings = []setting{
	{"data", func(l *Local) *string { return &l.Data }, notEmpty},
	{"tenant", func(l *Local) *string { return &l.Tenant }, name},
	{"bus", func(l *Local) *string { return &l.Bus }, busURL},
	{"bus_monitor", func(l *Local) *string { return &l.BusMonitor }, notEmpty},
	{"nats", func(l *Local) *string { return &l.NATS }, listenAddress},
	{"tenants", func(l *Local) *string { return &l.Tenants }, nameList},
	{"advertise", func(l *Local) *string { return &l.Advertise }, hosts},
	{"http", func(l *Local) *string { return &l.HTTP }, listenAddress},
	{"check_in", func(l *Local) *string { return &l.CheckIn.URL }, checkInURL},
	{"check_in_ttl", func(l *Local) *string { return &l.CheckIn.TTL }, ttl},
	{"log_format", func(l *Local) *string { return &l.Log.Format }, oneOf("text", "json")},
	{"log_level", func(l *Local) *string { return &l.Log.Level }, oneOf("debug", "info", "warn", "error")},
}

// ParseLocal reads a local file. Keys that are not in it stay empty in the
// result; an empty file is a good one. The error joins an *Error for each thing
// that is wrong.
func ParseLocal(text []byte) (*Local, error) {
	top, err := document(text)
	if err != nil {
		return nil, err
	}
	var p problems
	l := p.local(top)
	if err := p.err(); err != nil {
		return nil, err
	}
	return l, nil
}

func (p *problems) local(top *yaml.Node) *Local {
	m := p.read("", top)
	l := new(Local)
	var known []string
	for _, s := range settings {
		known = append(known, s.key)
		if !m.str(s.key, s.field(l)) {
			continue
		}
		if err := s.check(*s.field(l)); err != nil {
			m.wrong(s.key, "%v", err)
		}
	}
	m.only(known...)
	return l
}

func notEmpty(v string) error {
	if v == "" {
		return errors.New("it is empty")
	}
	return nil
}

func oneOf(values ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("%.40q is not one of %s", v, strings.Join(values, ", "))
		}
		return nil
	}
}

// name has the form of a tenant's.
func name(v string) error {
	if !nameForm.MatchString(v) {
		return fmt.Errorf("%.80q is not a name: 1 to 63 of a-z 0-9 -", v)
	}
	return nil
}

func nameList(v string) error {
	for n := range strings.SplitSeq(v, ",") {
		if err := name(n); err != nil {
			return err
		}
	}
	return nil
}

// busURL is not checked further: the engines know their own.
func busURL(v string) error {
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok || rest == "" || !slices.Contains([]string{"nats", "tls", "dynamodb"}, scheme) {
		return errors.New("it is not a URL of a bus: nats://HOST:PORT, tls://HOST:PORT or dynamodb://TABLE")
	}
	return nil
}

func hosts(v string) error {
	for h := range strings.SplitSeq(v, ",") {
		if h == "" || strings.ContainsAny(h, " /:[]") && net.ParseIP(h) == nil {
			return fmt.Errorf("%.80q is not a list of host names and IP addresses with commas between them", v)
		}
	}
	return nil
}

func checkInURL(v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Host == "" {
		return errors.New("it is not a URL, such as https://example.com/ID")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return errors.New("it has to start with https://, or to stay on this machine")
	}
	return nil
}

func ttl(v string) error {
	d, err := ParseDuration(v)
	if err == nil && time.Duration(d) < time.Minute {
		err = fmt.Errorf("%s is less than a minute", d)
	}
	return err
}

func listenAddress(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Errorf("%.80q is not an address to listen on, such as 127.0.0.1:4222", v)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%.80q has no port from 0 to 65535", v)
	}
	return nil
}
