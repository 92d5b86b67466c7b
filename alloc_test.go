// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/race"
)

func TestChoosingDoesNotAllocate(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + "test"
	put(t, &store, "id", root.leaf(t, names("www.example.com", "*.example.com", "192.0.2.1", "2001:db8::1", long)))
	put(t, &store, "default", root.leaf(t, names("default.test")))
	store.SetDefault("default")
	answer := root.leaf(t, names("www.example.com"))
	store.SetChallenges("ca", map[string]*tls.Certificate{"www.example.com": &answer})

	tcp := func(ip string) net.Conn { return connTo{addr: &net.TCPAddr{IP: net.ParseIP(ip), Zone: "eth0"}} }
	for _, test := range []struct {
		what string
		tls.ClientHelloInfo
		want string
	}{
		{"hit", tls.ClientHelloInfo{ServerName: "www.example.com"}, "id"},
		{"upper case", tls.ClientHelloInfo{ServerName: "WWW.example.com."}, "id"},
		{"long", tls.ClientHelloInfo{ServerName: strings.ToUpper(long)}, "id"},
		{"wildcard", tls.ClientHelloInfo{ServerName: "other.example.com"}, "id"},
		{"wildcard in upper case", tls.ClientHelloInfo{ServerName: "OTHER.example.com"}, "id"},
		{"miss", tls.ClientHelloInfo{ServerName: "a.b.example.com"}, "default"},
		{"junk", tls.ClientHelloInfo{ServerName: "\x00\xff" + strings.Repeat(".", 200)}, "default"},
		{"too long", tls.ClientHelloInfo{ServerName: strings.Repeat("a", 60_000)}, "default"},
		{"address as a name", tls.ClientHelloInfo{ServerName: "192.0.2.1"}, "id"},
		{"IPv4", tls.ClientHelloInfo{Conn: tcp("192.0.2.1")}, "id"},
		{"IPv6", tls.ClientHelloInfo{Conn: tcp("2001:db8::1")}, "id"},
		{"other address", tls.ClientHelloInfo{Conn: tcp("192.0.2.2")}, "default"},
		{"no address", tls.ClientHelloInfo{}, "default"},
		{"HTTP/2 alone", tls.ClientHelloInfo{ServerName: "www.example.com", SupportedProtos: []string{"h2"}}, "id"},
		{"a CA's and others", tls.ClientHelloInfo{ServerName: "www.example.com", SupportedProtos: []string{"acme-tls/1", "h2"}}, "id"},
	} {
		if got := chosen(t, &store, &test.ClientHelloInfo); got != test.want {
			t.Errorf("%s: chose %q, want %q", test.what, got, test.want)
		}
		n := testing.AllocsPerRun(100, func() { store.GetCertificate(&test.ClientHelloInfo) })
		if n != 0 && !race.Enabled {
			t.Errorf("%s: %v allocations", test.what, n)
		}
	}
}

// Whoever makes up names and asks for the answers to challenges costs nothing, and a CA
// finds its own without more.
func TestAnsweringDoesNotAllocate(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	answer := root.leaf(t, names("www.example.com"))
	store.SetChallenges("ca", map[string]*tls.Certificate{"www.example.com": &answer})
	for name, want := range map[string]*tls.Certificate{"www.example.com": &answer, "junk.example.com": nil, "": nil} {
		hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{keyturn.ACMETLS1}}
		n := testing.AllocsPerRun(1000, func() {
			if got, err := store.GetCertificate(hello); got != want || (err == nil) != (want != nil) {
				t.Fatal(got, err)
			}
		})
		if n != 0 && !race.Enabled {
			t.Errorf("%q: %v allocations", name, n)
		}
	}
}

// What refusing a made-up name costs is its error, observed or not.
func TestRefusingAllocatesItsError(t *testing.T) {
	var store keyturn.Store
	defer store.Observe(make(chan keyturn.Event))()
	hello := &tls.ClientHelloInfo{ServerName: "junk.test"}
	n := testing.AllocsPerRun(1000, func() { store.GetCertificate(hello) })
	if n > 1 && !race.Enabled {
		t.Errorf("%v allocations, want 1", n)
	}
}
