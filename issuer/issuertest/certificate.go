// SPDX-License-Identifier: Apache-2.0

package issuertest

import (
	"bytes"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

func testKeyTypes(t *testing.T, c Config) {
	for _, kt := range c.KeyTypes {
		t.Run(kt.String(), func(t *testing.T) {
			key, err := kt.Generate()
			if err != nil {
				t.Fatal(err)
			}
			c.issue(t, c.request(t, key, "www.@"), 0)
		})
	}
}

func testLifetime(t *testing.T, c Config) {
	wishes := []time.Duration{time.Hour, 24 * time.Hour}
	if c.MaxLifetime > 0 {
		wishes = append(wishes, 2*c.MaxLifetime)
	}
	if c.OwnLifetime {
		t.Log("this CA ignores the requested lifetime")
	}
	for _, wish := range wishes {
		t.Run(wish.String(), func(t *testing.T) {
			leaf := c.issue(t, c.request(t, c.key(t), "www.@"), wish)
			want := wish
			if c.MaxLifetime > 0 {
				want = min(wish, c.MaxLifetime)
			}
			got := time.Until(leaf.NotAfter)
			if off := (got - want).Abs(); !c.OwnLifetime && off > c.LifetimeSlack {
				t.Errorf("wished for %s, want %s, got %s", wish, want, got)
			}
		})
	}
}

// testValidity does not want a certificate to begin before it was asked for. Not
// every CA backdates: one that does not gives the whole second in which it signs
// (RFC 5280 section 4.1.2.5), which may have begun since. What has to have begun
// when it is there, issue has checked.
func testValidity(t *testing.T, c Config) {
	before := time.Now()
	leaf := c.issue(t, c.request(t, c.key(t), "www.@"), 0)
	if back := before.Sub(leaf.NotBefore); back > c.MaxBackdate {
		t.Errorf("it begins %s before it was asked for; at most %s is allowed", back, c.MaxBackdate)
	}
	if leaf.NotAfter.After(c.Root.NotAfter) {
		t.Errorf("it ends at %s, after the root at %s", leaf.NotAfter, c.Root.NotAfter)
	}
}

// testSerials looks at the bits that differ among 32 serial numbers: a random
// bit is the same in all of them once in 2^31 runs, those of a counter or a
// clock above the lowest ones always are.
func testSerials(t *testing.T, c Config) {
	const n = 32
	var first *big.Int
	differ := new(big.Int)
	seen := make(map[string]bool)
	for range n {
		// A CA may take the same request for a repetition, and answer as before.
		serial := c.issue(t, c.request(t, c.key(t), "www.@"), 0).SerialNumber
		if serial.Sign() <= 0 || serial.BitLen() > 20*8-1 {
			t.Fatalf("serial number %x is not positive or has more than 20 octets (RFC 5280 section 4.1.2.2)", serial)
		}
		if seen[serial.String()] {
			t.Fatalf("serial number %x was given twice", serial)
		}
		seen[serial.String()] = true
		if first == nil {
			first = serial
		}
		differ.Or(differ, new(big.Int).Xor(first, serial))
	}
	random := 0
	for i := range differ.BitLen() {
		random += int(differ.Bit(i))
	}
	if random < c.SerialBits {
		t.Errorf("%d bits differ among %d serial numbers; want %d", random, n, c.SerialBits)
	}
}

// testLeaf looks at the profile of RFC 5280 section 4.2.1.
func testLeaf(t *testing.T, c Config) {
	csr := c.request(t, c.key(t), "www.@")
	chain, err := c.Issuer.Issue(t.Context(), csr, 0)
	if err != nil {
		t.Fatal(err)
	}
	leaf := c.check(t, chain, csr)
	if leaf.IsCA {
		t.Error("the leaf is a CA")
	}
	if leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		t.Error("the leaf may sign certificates or lists")
	}
	if leaf.Version != 3 {
		t.Errorf("the leaf has version %d", leaf.Version)
	}
	parent := c.Root
	if len(chain) > 1 {
		if parent, err = x509.ParseCertificate(chain[1]); err != nil {
			t.Fatal(err)
		}
	}
	if len(leaf.AuthorityKeyId) == 0 || !bytes.Equal(leaf.AuthorityKeyId, parent.SubjectKeyId) {
		t.Errorf("the leaf's authority key identifier %x is not its issuer's, %x", leaf.AuthorityKeyId, parent.SubjectKeyId)
	}
}
