// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
)

// believes returns what a server makes of a client with leaf, whose chain was verified,
// given the names of peers.
func believes(t testing.TB, trust *keyturn.Trust, leaf *x509.Certificate) error {
	t.Helper()
	config, err := trust.ServerConfig(new(tls.Config)).GetConfigForClient(new(tls.ClientHelloInfo))
	if err != nil {
		t.Fatal(err)
	}
	return config.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
}

// verifying returns a Trust that verifies clients.
func verifying(root *authority) *keyturn.Trust {
	trust := new(keyturn.Trust)
	trust.SetClientCAs(root.pool())
	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
	return trust
}

func TestPeerNames(t *testing.T) {
	root := newRoot(t, "root")
	trust := verifying(root)
	for _, test := range []struct {
		peer, has string
		want      bool
	}{
		{"db.internal", "db.internal", true},
		{"DB.internal.", "db.INTERNAL", true},
		{"db.internal", "db2.internal", false},
		{"db.internal", "a.db.internal", false},
		{"db.internal", "internal", false},
		{"db.internal", "*.internal", true},
		{"*.internal", "db.internal", true},
		{"*.INTERNAL", "DB.internal", true},
		{"*.internal", "*.internal", true},
		{"*.internal", "a.db.internal", false},
		{"*.internal", "internal", false},
		{"*.internal", "db.notinternal", false},
		{"*.a.internal", "*.internal", false},
		{"internal", "db.internal", false},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.11", false},
		{"2001:db8::1", "2001:DB8:0::1", true},
		{"2001:db8::1", "2001:db8::2", false},

		{"spiffe://example.org/web", "spiffe://example.org/web", true},
		{"spiffe://example.org/web", "spiffe://eXample.org/web", false},
		{"SPIFFE://example.org/web", "spiffe://example.org/web", true},
		{"HTTPS://Example.org/web", "https://eXample.org/web", true},
		{"spiffe://example.org/web", "spiffe://example.org/Web", false},
		{"spiffe://example.org/web", "spiffe://example.org/web2", false},
		{"spiffe://example.org/web", "spiffe://example.org/web/2", false},
		{"spiffe://example.org/web", "spiffe://example.org", false},
		{"spiffe://example.org/web", "spiffe://example.com/web", false},
		{"spiffe://example.org/web", "spiffe://a.example.org/web", false},
		{"spiffe://example.org/web", "spiffe://example.org.evil.test/web", false},
		{"spiffe://example.org/web", "https://example.org/web", false},
		{"spiffe://example.org/web", "spiffe://example.org:443/web", false},
		{"spiffe://example.org/web", "spiffe://example.org:/web", false},
		{"https://example.org:443/web", "https://example.org:443/web", true},
		{"https://example.org:443/web", "https://example.org:444/web", false},
		{"spiffe://example.org/web", "spiffe://user@example.org/web", false},
		{"spiffe://example.org/web", "spiffe://@example.org/web", false},
		{"spiffe://example.org/web", "spiffe://example.org/web?x", false},
		{"spiffe://example.org/web", "spiffe://example.org/web?", false},
		{"spiffe://example.org/web", "spiffe://example.org/web#x", false},
		{"spiffe://example.org/web", "spiffe://example.org/web/", false},
		{"spiffe://example.org/web", "spiffe://example.org//web", false},
		{"spiffe://example.org/web", "spiffe://example.org/./web", false},
		{"spiffe://example.org/web", "spiffe://example.org/a/../web", false},
		{"spiffe://example.org/web", "spiffe://example.org/%77eb", false},
		{"spiffe://example.org/web", "spiffe:example.org/web", false},
		{"spiffe://example.org/web", "db.internal", false},
		{"spiffe://example.org", "spiffe://example.org", true},
		{"spiffe://example.org", "spiffe://example.org/", false},
		{"spiffe://example.org", "spiffe://example.org/web", false},
		{"https://[2001:db8::1]/web", "https://[2001:DB8::1]/web", true},
		{"spiffe://example.org/web", "spiffe://example.org/web~", false},
		{"spiffe://example.org/Web_1.0-a", "spiffe://example.org/Web_1.0-a", true},

		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/prod", true},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/prod/sa/web", true},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/*", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a~", false},
		{"https://example.org/ns/*", "https://EXAMPLE.org/ns/*", true},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns2/prod", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/../admin", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a/../../admin", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/%2e%2e/admin", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a%2fb", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a//b", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a/", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a?b", false},
		{"spiffe://example.org/ns/*", "spiffe://example.org/NS/a", false},
		{"spiffe://example.org/*", "spiffe://example.org/web", true},
		{"spiffe://example.org/*", "spiffe://example.org", false},
		{"spiffe://example.org/*", "spiffe://example.orgs/web", false},
		{"spiffe://example.org/*", "spiffe://example.org:443/web", false},

		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/prod/sa/web", true},
		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/a/b/sa/web", false},
		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/sa/web", false},
		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns//sa/web", false},
		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/../sa/web", false},
		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/prod/sa/web2", false},
		{"spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/prod/sa/web/a", false},
		{"spiffe://example.org/ns/*/sa/*", "spiffe://example.org/ns/prod/sa/web/a", true},
		{"spiffe://example.org/ns/*/sa/*", "spiffe://example.org/ns/prod/sa", false},
		{"spiffe://example.org/*/*", "spiffe://example.org/a/b", true},
		{"spiffe://example.org/*/*", "spiffe://example.org/a", false},
		{"spiffe://example.org/*/web", "spiffe://example.com/a/web", false},
	} {
		if err := trust.SetPeerNames(test.peer); err != nil {
			t.Errorf("%q: %v", test.peer, err)
			continue
		}
		option := names(test.has)
		if strings.Contains(test.has, ":/") || strings.HasPrefix(test.has, "spiffe:") {
			option = uris(test.has)
		}
		err := believes(t, trust, parse(t, root.leaf(t, option).Certificate[0]))
		if (err == nil) != test.want || err != nil && !errors.Is(err, keyturn.ErrPeerName) {
			t.Errorf("%q for a peer that has %q: %v, want %t", test.peer, test.has, err, test.want)
		}
	}
}

// Any of the names will do, and the common name is none.
func TestPeerNamesOfMany(t *testing.T) {
	root := newRoot(t, "root")
	trust := verifying(root)
	if err := trust.SetPeerNames("a.test", "192.0.2.1", "spiffe://example.org/*", "https://c.test/x"); err != nil {
		t.Fatal(err)
	}
	common := func(c *x509.Certificate) { c.Subject.CommonName = "a.test" }
	for _, test := range []struct {
		has  leafOption
		want error
	}{
		{names("b.test", "a.test"), nil},
		{names("b.test", "192.0.2.2", "192.0.2.1"), nil},
		{uris("spiffe://example.org/x"), nil},
		{uris("https://b.test/x", "spiffe://example.org/x"), keyturn.ErrPeerName},
		{uris("spiffe://example.org/x", "spiffe://example.org/y"), keyturn.ErrPeerName},
		{uris("https://b.test/x", "https://c.test/x"), nil},
		{names("b.test", "192.0.2.2"), keyturn.ErrPeerName},
		{common, keyturn.ErrPeerName},
		{func(*x509.Certificate) {}, keyturn.ErrPeerName},
	} {
		if err := believes(t, trust, parse(t, root.leaf(t, test.has).Certificate[0])); !fits(err, test.want) {
			t.Errorf("%v, want %v", err, test.want)
		}
	}
	if err := trust.SetPeerNames(); err != nil || trust.PeerNames() != nil {
		t.Errorf("%v, %q", err, trust.PeerNames())
	}
	if err := believes(t, trust, parse(t, root.leaf(t, common).Certificate[0])); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

// TestPeers believes by the same names where there is no Trust, and nobody whom the
// config does not verify.
func TestPeers(t *testing.T) {
	root := newRoot(t, "root")
	peers, err := keyturn.ParsePeers("*.internal", "spiffe://example.org/ns/*/sa/web")
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(option leafOption) []*x509.Certificate {
		return []*x509.Certificate{parse(t, root.leaf(t, option).Certificate[0])}
	}
	good, other := leaf(uris("spiffe://example.org/ns/prod/sa/web")), leaf(names("db.example"))
	for _, test := range []struct {
		what  string
		peers *keyturn.Peers
		state tls.ConnectionState
		says  string
	}{
		{"good", peers, tls.ConnectionState{PeerCertificates: good, VerifiedChains: [][]*x509.Certificate{good}}, ""},
		{"other", peers, tls.ConnectionState{PeerCertificates: other, VerifiedChains: [][]*x509.Certificate{other}}, "none of the 2 names"},
		{"not verified", peers, tls.ConnectionState{PeerCertificates: good}, "verifies no certificate"},
		{"none", peers, tls.ConnectionState{}, "it has shown none"},
		{"zero", new(keyturn.Peers), tls.ConnectionState{PeerCertificates: good, VerifiedChains: [][]*x509.Certificate{good}}, "none of the 0 names"},
	} {
		err := test.peers.VerifyConnection(test.state)
		if (err == nil) != (test.says == "") || err != nil && (!errors.Is(err, keyturn.ErrPeerName) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v, want %q", test.what, err, test.says)
		}
	}
	if _, err := keyturn.ParsePeers("spiffe://Example.org/web"); !errors.Is(err, keyturn.ErrBadName) {
		t.Error(err)
	}
}

func TestPeerNamesRefused(t *testing.T) {
	var trust keyturn.Trust
	if err := trust.SetPeerNames("a.test"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", ".", "*", "*.", "*.*.test", "a.*.test", "a*.test", "a..test", "-a.test", "a b.test", "a/b", "user@a.test",
		"münchen.test", "\u212aube.test", "a.test:443", "[::1]", "192.0.2", "192.0.2.1/24", "fe80::1%eth0",
		strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 130) + "test",
		"://", "://a", "spiffe://", "spiffe:///web", "spiffe://*", "spiffe://*/web", "spiffe://a*/web", "spiffe://example.org/",
		"spiffe://example.org/web/", "spiffe://example.org//web", "spiffe://example.org/*web/a", "spiffe://example.org/we*", "spiffe://example.org/we*/a",
		"spiffe://Example.org/web", "spiffe://example.org:443/web", "spiffe://[::1]/web", "spiffe://example.org/we~b", "spiffe://" + strings.Repeat("a", 256) + "/web",
		"https://*/web", "https://a*/web", "https://example.org/*b/web", "https://example.org/%2a/web",
		"spiffe://example.org/**", "spiffe://example.org//*", "spiffe://example.org/../*", "spiffe://example.org/./web",
		"spiffe://example.org/a%2fb", "spiffe://example.org/a b", "spiffe://example.org/ä", "spiffe://\u212aube.test/web",
		"spiffe://%E2%84%AAube.test/web", "spiffe://example.org/web?", "spiffe://example.org/web?x=/*", "spiffe://example.org/web#x",
		"spiffe://user@example.org/web", "spiffe://example.org:port/web", "spiffe://[::1/web", "spiffe://[fe80::1%25eth0]/web", "spiffe://example.org/\x00",
	} {
		err := trust.SetPeerNames("b.test", name)
		if !errors.Is(err, keyturn.ErrBadName) || len(trust.PeerNames()) != 1 || trust.PeerNames()[0] != "a.test" {
			t.Errorf("%q: %v, and the names are %q", name, err, trust.PeerNames())
		}
		if err != nil && strings.Contains(err.Error(), "\x00") {
			t.Errorf("%q is not quoted", name)
		}
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = "a.test"
	}
	if err := trust.SetPeerNames(many...); !errors.Is(err, keyturn.ErrTooLarge) {
		t.Errorf("%d names: %v", len(many), err)
	}
	if err := trust.SetPeerNames(many[1:]...); err != nil {
		t.Errorf("1000 names: %v", err)
	}
}

var (
	plainLabel = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`)
	plainURI   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://[^/?#%@*\x00-\x20\x7f-\x{10ffff}]+((/[^/?#%]+)*)$`)
	plainID    = regexp.MustCompile(`^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*$`)
)

// expected is whether a peer with one subject alternative name is believed. It goes by
// regular expressions, and by crypto/x509, where the code goes by the parts of a URI and
// by keys.
func expected(peer string, leaf *x509.Certificate) bool {
	if strings.Contains(peer, "://") {
		if len(leaf.URIs) == 0 {
			return false
		}
		has := leaf.URIs[0].String()
		m := plainURI.FindStringSubmatch(has)
		if m == nil || strings.Contains(m[1]+"/", "/./") || strings.Contains(m[1]+"/", "/../") ||
			leaf.URIs[0].Scheme == "spiffe" && !plainID.MatchString(has) {
			return false
		}
		split := func(uri, path string) string { return strings.ToLower(strings.TrimSuffix(uri, path)) + path }
		want := regexp.QuoteMeta(split(peer, plainURI.FindStringSubmatch(peer)[1]))
		if base, below := strings.CutSuffix(want, `/\*`); below {
			want = base + "(/[^/]+)+"
		}
		for range strings.Count(want, `/\*/`) {
			want = strings.Replace(want, `/\*/`, "/[^/]+/", 1)
		}
		return regexp.MustCompile("^" + want + "$").MatchString(split(has, m[1]))
	}
	peer = strings.TrimSuffix(peer, ".")
	parent, wildcard := strings.CutPrefix(peer, "*.")
	if !wildcard {
		return leaf.VerifyHostname(peer) == nil
	}
	if len(leaf.DNSNames) == 0 || len(leaf.DNSNames[0]) > 253+2 {
		return false
	}
	label, above, _ := strings.Cut(leaf.DNSNames[0], ".")
	return strings.EqualFold(above, parent) && (label == "*" || plainLabel.MatchString(label) && len(leaf.DNSNames[0]) <= 253)
}

func FuzzPeerNames(f *testing.F) {
	for _, seed := range [][2]string{
		{"db.internal", "DB.internal"},
		{"*.internal", "db.internal"},
		{"*.internal", "*.internal"},
		{"192.0.2.1", "::ffff:192.0.2.1"},
		{"spiffe://example.org/web", "spiffe://example.org/web2"},
		{"spiffe://example.org/ns/*", "spiffe://example.org/ns/a/../../admin"},
		{"spiffe://example.org/ns/*", "spiffe://EXAMPLE.org/ns/a%2fb"},
		{"spiffe://example.org/ns/*/sa/*", "spiffe://example.org/ns/a/sa/b/c"},
		{"https://[::1]:8443/*/a", "https://u:p@[::1]:8443/a?b#c"},
		{"spiffe://kube.test/a", "spiffe://%E2%84%AAube.test/a"},
	} {
		f.Add(seed[0], seed[1])
	}
	root := newRoot(f, "root")
	trust := verifying(root)
	f.Fuzz(func(t *testing.T, peer, has string) {
		if trust.SetPeerNames(peer) != nil {
			return
		}
		leaf := new(x509.Certificate)
		if ip, err := netip.ParseAddr(has); err == nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip.AsSlice())
		} else if u, err := url.Parse(has); err == nil && u.Scheme != "" {
			leaf.URIs = append(leaf.URIs, u)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, has)
		}
		err := believes(t, trust, leaf)
		if want := expected(peer, leaf); (err == nil) != want || err != nil && !errors.Is(err, keyturn.ErrPeerName) {
			t.Fatalf("%q for a peer that has %q: %v, want %t", peer, has, err, want)
		}
	})
}

// No certificate makes it panic, and none is believed but for its names.
func FuzzPeerCertificate(f *testing.F) {
	root := newRoot(f, "root")
	for _, option := range []leafOption{
		func(*x509.Certificate) {}, names("a.test", "192.0.2.1"), uris("spiffe://example.org/a", "mailto:a@b.test"),
		func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"}; c.Subject.CommonName = "a.test" },
	} {
		f.Add(root.leaf(f, option).Certificate[0])
	}
	trust := verifying(root)
	if err := trust.SetPeerNames("a.test", "*.b.test", "192.0.2.1", "spiffe://example.org/*"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if believes(t, trust, leaf) == nil && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0 {
			t.Fatalf("a certificate without names is believed: %x", der)
		}
	})
}
