// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
)

// put puts a certificate for the names under id.
func put(t testing.TB, store *keyturn.Store, id string, cert tls.Certificate) {
	t.Helper()
	if err := store.Put(id, cert); err != nil {
		t.Fatal(err)
	}
}

// chosen returns the id of the certificate for a handshake, "" if it is refused.
func chosen(t testing.TB, store *keyturn.Store, hello *tls.ClientHelloInfo) string {
	t.Helper()
	cert, err := store.GetCertificate(hello)
	if err != nil {
		var unknown *keyturn.UnknownNameError
		if !errors.As(err, &unknown) || cert != nil {
			t.Fatalf("GetCertificate = %v, %v", cert, err)
		}
		return ""
	}
	if cert == nil || cert.Leaf == nil {
		t.Fatalf("GetCertificate = %v without a leaf or an error", cert)
	}
	for id := range store.All() {
		if held, ok := store.Get(id); ok && held == cert {
			return id
		}
	}
	t.Fatal("GetCertificate chose a certificate that the store does not hold")
	return ""
}

// A connTo is a connection whose client connected to addr.
type connTo struct {
	net.Conn
	addr net.Addr
}

func (c connTo) LocalAddr() net.Addr { return c.addr }

// A packetAddr is an address of a type that this package cannot know.
type packetAddr struct{ at netip.AddrPort }

func (a packetAddr) Network() string          { return "other" }
func (a packetAddr) String() string           { return a.at.String() }
func (a packetAddr) AddrPort() netip.AddrPort { return a.at }

func TestSelectByName(t *testing.T) {
	root := newRoot(t, "root")
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61)
	var store keyturn.Store
	for id, cert := range map[string]tls.Certificate{
		"exact":    root.leaf(t, names("www.example.com", "UPPER.example.com", "under_score.example.com")),
		"wildcard": root.leaf(t, names("*.example.com")),
		"tld":      root.leaf(t, names("*.test")),
		"single":   root.leaf(t, names("localhost")),
		"address":  root.leaf(t, names("192.0.2.1", "2001:db8::1")),
		"long":     root.leaf(t, names(long)),
		"oddities": root.leaf(t, names("odd.test", "trailing.test.", "a.*.test", "f*.part.test", "*", "1.2.3", "*.2.3.4", "sp ace.test", "-dash.test")),
		"client":   root.leaf(t, names("client.test.example"), usages(x509.ExtKeyUsageClientAuth)),
		"spiffe":   root.leaf(t, uris("spiffe://example.org/web")),
		"default":  root.leaf(t, names("default.example")),
	} {
		put(t, &store, id, cert)
	}

	for _, test := range []struct{ name, want string }{
		{"www.example.com", "exact"},
		{"WWW.Example.COM", "exact"},
		{"www.example.com.", "exact"},
		{"WWW.example.com.", "exact"},
		{"www.example.com..", ""},
		{"upper.example.com", "exact"},
		{"under_score.example.com", "exact"},

		{"other.example.com", "wildcard"},
		{"OTHER.example.com", "wildcard"},
		{"other.EXAMPLE.com.", "wildcard"},
		{"a_b.example.com", "wildcard"},
		{"a.b.example.com", ""},
		{"example.com", ""},
		{".example.com", ""},
		{"*.example.com", ""},
		{"-a.example.com", ""},
		{"a b.example.com", ""},
		{"ü.example.com", ""},
		{"\xff\xfe.example.com", ""},
		{"\x00.example.com", ""},
		{strings.Repeat("a", 63) + ".example.com", "wildcard"},
		{strings.Repeat("a", 64) + ".example.com", ""},
		{"any.test", "tld"},
		{"test", ""},

		{"localhost", "single"},
		{"LocalHost.", "single"},
		{"other", ""},
		{".", ""},
		{"..", ""},
		{long, "long"},
		{strings.ToUpper(long) + ".", "long"},
		{"x" + long, ""},
		{strings.Repeat("a.", 40_000), ""},

		// RFC 6066 permits no addresses, but they come.
		{"192.0.2.1", "address"},
		{"2001:db8::1", "address"},
		{"2001:db8:0::1", "address"},
		{"::ffff:192.0.2.1", "address"},
		{"192.0.2.2", ""},
		{"9.2.3.4", ""},
		{"\x00" + string(net.IPv4(192, 0, 2, 1).To16()), ""},

		{"odd.test", "oddities"},
		{"trailing.test", "tld"},
		{"1.2.3", ""},
		{"foo.part.test", ""},
		{"client.test.example", ""},
		{"web", ""},
	} {
		hello := &tls.ClientHelloInfo{ServerName: test.name}
		store.SetDefault("")
		if got := chosen(t, &store, hello); got != test.want {
			t.Errorf("%.80q: chose %q, want %q", test.name, got, test.want)
		}
		store.SetDefault("default")
		if test.want == "" {
			test.want = "default"
		}
		if got := chosen(t, &store, hello); got != test.want {
			t.Errorf("%.80q: chose %q, want %q with a default", test.name, got, test.want)
		}
	}
}

func TestSelectByAddress(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "v4", root.leaf(t, names("192.0.2.1")))
	put(t, &store, "v6", root.leaf(t, names("2001:db8::1")))
	put(t, &store, "name", root.leaf(t, names("www.example.com")))

	v4, v6 := net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")
	for _, test := range []struct {
		conn net.Conn
		want string
	}{
		{connTo{addr: &net.TCPAddr{IP: v4.To4(), Port: 443}}, "v4"},
		{connTo{addr: &net.TCPAddr{IP: v4.To16(), Port: 443}}, "v4"},
		{connTo{addr: &net.TCPAddr{IP: v6, Zone: "eth0"}}, "v6"},
		{connTo{addr: &net.UDPAddr{IP: v4}}, "v4"},
		{connTo{addr: &net.IPAddr{IP: v6}}, "v6"},
		{connTo{addr: packetAddr{netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")}}, "v4"},
		{connTo{addr: packetAddr{netip.MustParseAddrPort("[2001:db8::1%eth0]:1")}}, "v6"},
		{connTo{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2)}}, ""},
		{connTo{addr: &net.TCPAddr{}}, ""},
		{connTo{addr: (*net.TCPAddr)(nil)}, ""},
		{connTo{addr: (*net.UDPAddr)(nil)}, ""},
		{connTo{addr: (*net.IPAddr)(nil)}, ""},
		{connTo{addr: &net.UnixAddr{Name: "/run/socket"}}, ""},
		{connTo{}, ""},
		{nil, ""},
	} {
		store.SetDefault("")
		if got := chosen(t, &store, &tls.ClientHelloInfo{Conn: test.conn}); got != test.want {
			t.Errorf("%+v: chose %q, want %q", test.conn, got, test.want)
		}
		store.SetDefault("name")
		if test.want == "" {
			test.want = "name"
		}
		if got := chosen(t, &store, &tls.ClientHelloInfo{Conn: test.conn}); got != test.want {
			t.Errorf("%+v: chose %q, want %q with a default", test.conn, got, test.want)
		}
	}
}

func TestUnknownName(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	_, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"})
	var unknown *keyturn.UnknownNameError
	if !errors.As(err, &unknown) || !unknown.Empty || !strings.Contains(err.Error(), "there is none at all") {
		t.Errorf("an empty store: %v", err)
	}
	put(t, &store, "other", root.leaf(t, names("other.test")))
	for _, test := range []struct {
		hello *tls.ClientHelloInfo
		want  string
	}{
		{&tls.ClientHelloInfo{ServerName: "a\n\"b"}, `none covers server name "a\n\"b"; put one that covers it or set a default`},
		{&tls.ClientHelloInfo{ServerName: strings.Repeat("a", 70_000)}, `"` + strings.Repeat("a", 255) + `"`},
		{&tls.ClientHelloInfo{Conn: connTo{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}}, "none covers address 192.0.2.1; put one"},
		{&tls.ClientHelloInfo{}, "the local address is unknown; set a default"},
	} {
		_, err := store.GetCertificate(test.hello)
		if !errors.As(err, &unknown) || unknown.Empty || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.20q: error %v, want one with %s", test.hello.ServerName, err, test.want)
		}
	}
	store.SetDefault("to come")
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "a.test"}); got != "" {
		t.Errorf("chose %q for a default that is not there", got)
	}
	put(t, &store, "to come", root.leaf(t, names("default.test")))
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "a.test"}); got != "to come" {
		t.Errorf("chose %q, want the default that came", got)
	}
	put(t, &store, "to come", root.leaf(t, names("default.test"), usages(x509.ExtKeyUsageClientAuth)))
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "a.test"}); got != "" {
		t.Errorf("chose %q, which is for clients", got)
	}
	put(t, &store, "to come", root.leaf(t, names("default.test")))
	store.Remove("to come")
	if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: "a.test"}); got != "" {
		t.Errorf("chose %q, which was removed", got)
	}
}

// hello returns what a client of TLS 1.3 says that can verify the schemes.
func hello(name string, schemes ...tls.SignatureScheme) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        name,
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  schemes,
	}
}

func TestSelectAmongSeveral(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	const name = "www.example.com"
	ec, rsa, ed := tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.Ed25519

	check := func(want string, schemes ...tls.SignatureScheme) {
		t.Helper()
		if got := chosen(t, &store, hello(name, schemes...)); got != want {
			t.Errorf("chose %q for %v, want %q", got, schemes, want)
		}
	}
	put(t, &store, "ecdsa", root.leaf(t, names(name)))
	put(t, &store, "rsa", root.leafFor(t, newKey(t, x509.RSA), names(name)))
	check("ecdsa", ec, rsa)
	check("rsa", rsa)
	check("ecdsa", ed) // none is supported: the best otherwise
	put(t, &store, "ed25519", root.leafFor(t, newKey(t, x509.Ed25519), names(name)))
	check("ed25519", ec, rsa, ed)
	check("ecdsa", ec, rsa)
	put(t, &store, "newer", root.leaf(t, names(name, "newer.example.com")))
	check("newer", ec, rsa, ed)
	put(t, &store, "ecdsa", root.leaf(t, names(name)))
	check("ecdsa", ec, rsa, ed)

	// An exact name comes before a wildcard, whatever else speaks for that.
	put(t, &store, "wildcard", root.leaf(t, names("*.example.com")))
	check("ecdsa", ec)

	// Each removal falls back to what remains.
	for _, step := range []struct{ remove, then string }{
		{"ecdsa", "newer"}, {"newer", "ed25519"}, {"ed25519", "rsa"}, {"rsa", "wildcard"}, {"wildcard", ""},
	} {
		if !store.Remove(step.remove) || store.Remove(step.remove) {
			t.Errorf("Remove(%q) does not report truly", step.remove)
		}
		check(step.then, ec, rsa, ed)
	}
	if n := store.Len(); n != 0 {
		t.Errorf("Len = %d after all was removed", n)
	}
}

func TestSelectPrefersValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newRoot(t, "root")
		var store keyturn.Store
		const name = "www.example.com"
		hello := hello(name, tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256)
		put(t, &store, "rsa", root.leafFor(t, newKey(t, x509.RSA), names(name), validity(-time.Hour, 3*time.Hour)))
		put(t, &store, "ecdsa", root.leaf(t, names(name), validity(-time.Hour, time.Hour)))
		for _, step := range []struct {
			after time.Duration
			want  string
		}{{0, "ecdsa"}, {2 * time.Hour, "rsa"}, {4 * time.Hour, "ecdsa"}} {
			time.Sleep(step.after)
			if got := chosen(t, &store, hello); got != step.want {
				t.Errorf("%v later: chose %q, want %q", step.after, got, step.want)
			}
		}
	})
}
