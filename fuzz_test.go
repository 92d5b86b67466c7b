// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
)

// FuzzSelect compares the choice with crypto/x509: what is chosen covers the name, and
// what covers the name is chosen, unless the name is none that a client may send.
func FuzzSelect(f *testing.F) {
	f.Add("www.example.com\n*.example.com", "192.0.2.1", "www.example.com")
	f.Add("*.example.com", "2001:db8::1", "A.Example.com.")
	f.Add("*.b.c\na.b.c\n*.c", "::ffff:192.0.2.1", "a.b.c")
	f.Add("*\n*.\n.a\na..b\n*.*.a\n1.2.3.4\n*.2.3.4", "1.2.3.4", "1.2.3.4")
	f.Add("a_b.c\n-a.b\na-.b\nÄ.b\nx.b.", "::", "x.b.")
	f.Add("*.b", "", "*.b")
	f.Fuzz(func(t *testing.T, dns, ip, name string) {
		var leaves [2]*x509.Certificate
		store := new(Store)
		for i, id := range []string{"first", "second"} {
			leaf := &x509.Certificate{}
			for j, san := range strings.Split(dns, "\n") {
				if j%2 == i { // so that they cover different names
					leaf.DNSNames = append(leaf.DNSNames, san)
				}
			}
			if ip := net.ParseIP(ip); ip != nil {
				leaf.IPAddresses = append(leaf.IPAddresses, ip)
			}
			leaves[i] = leaf
			store.exchange(nil, newGeneration(id, &tls.Certificate{Leaf: leaf}, keysOf(leaf), int64(i)))
		}

		cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if (cert == nil) == (err == nil) {
			t.Fatalf("GetCertificate = %v, %v", cert, err)
		}
		if cert != nil {
			if err := cert.Leaf.VerifyHostname(name); err != nil {
				t.Fatalf("%q: chosen for it, and %v", name, err)
			}
			return
		}
		host := strings.TrimSuffix(name, ".")
		if net.ParseIP(name) == nil && !validName(host) || strings.HasPrefix(name, "[") {
			return
		}
		for _, leaf := range leaves {
			if leaf.VerifyHostname(name) == nil && len(host) <= maxName && !onlyByUnusable(leaf, name) {
				t.Fatalf("%q: refused, and one covers it: %q %v", name, leaf.DNSNames, leaf.IPAddresses)
			}
		}
	})
}

// onlyByUnusable reports whether name is covered only by names that cannot be held: too
// long, or such as no name server knows.
func onlyByUnusable(leaf *x509.Certificate, name string) bool {
	usable := &x509.Certificate{IPAddresses: leaf.IPAddresses}
	for _, san := range leaf.DNSNames {
		if _, ok := keyOf(san); ok {
			usable.DNSNames = append(usable.DNSNames, san)
		}
	}
	return usable.VerifyHostname(name) != nil
}
