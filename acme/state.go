// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// A request is what makes two wishes for a certificate the same.
type request struct {
	Directory string         `json:"directory"`
	Names     []string       `json:"names"` // sorted
	Key       issuer.KeyType `json:"key"`
	Profile   string         `json:"profile,omitempty"`
	Chain     string         `json:"chain,omitempty"`
}

func (r request) equal(o request) bool {
	return r.Directory == o.Directory && slices.Equal(r.Names, o.Names) && r.Key == o.Key && r.Profile == o.Profile && r.Chain == o.Chain
}

// A state is what is kept beside the certificate.
type state struct {
	// Leaf is the SHA-256 of the certificate that all up to Ask is about, in
	// hexadecimal.
	Leaf   string    `json:"leaf,omitempty"`
	Made   request   `json:"made,omitzero"`
	Issued time.Time `json:"issued,omitzero"`
	// Recalled says that it is there because the CA wanted the one before replaced
	// sooner than that was due.
	Recalled bool `json:"recalled,omitempty"`
	// Window is when the CA wants it renewed; nil if it did not say. Ask is when to
	// ask again.
	Window *window   `json:"window,omitempty"`
	Ask    time.Time `json:"ask,omitzero"`

	Order   *order   `json:"order,omitempty"`
	Failure *failure `json:"failure,omitempty"`
}

// A window is renewal information (RFC 9773).
type window struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"explanation,omitempty"`
}

// An order is one that the CA may have been asked to sign for.
type order struct {
	For     request   `json:"for"`
	URL     string    `json:"url"`
	Expires time.Time `json:"expires,omitzero"`
	CSR     []byte    `json:"csr"` // PKCS #10
	Key     []byte    `json:"key"` // PKCS #8
}

// A failure is the last of Count in a row.
type failure struct {
	For   request   `json:"for"`
	Count uint64    `json:"count"`
	At    time.Time `json:"at"`
	Next  time.Time `json:"next"`
	Text  string    `json:"text"`
}

// match makes the state that of p: whoever wrote it may have been ended before the
// state followed, or somebody has put a certificate of his own there.
func (st *state) match(p *pair) {
	if st.Leaf == p.fingerprint() {
		return
	}
	made := request{Names: certificateNames(p.leaf), Key: issuer.KeyTypeOf(p.leaf.PublicKey)}
	if st.Order != nil && st.Order.signed(p.leaf) {
		made, st.Order, st.Failure = st.Order.For, nil, nil
	}
	st.Recalled = false
	st.made(p, made, p.leaf.NotBefore)
}

// made says of which request the certificate came, and when.
func (st *state) made(p *pair, of request, issued time.Time) {
	st.Leaf, st.Made, st.Issued, st.Window, st.Ask = p.fingerprint(), of, issued, nil, time.Time{}
}

// serves reports whether the certificate is one for the request. Of one that somebody
// else has put there it is not known who issued it.
func (st *state) serves(want request) bool {
	if st.Made.Directory == "" {
		want.Directory, want.Profile, want.Chain = "", "", ""
	}
	return st.Leaf != "" && st.Made.equal(want)
}

// covers reports whether the certificate has all the names, whatever else is wanted.
func (st *state) covers(want request) bool {
	for _, name := range want.Names {
		if !slices.Contains(st.Made.Names, name) {
			return false
		}
	}
	return true
}

// certificateNames are the names of a leaf in their normal form, sorted.
func certificateNames(leaf *x509.Certificate) []string {
	var all []string
	for _, name := range leaf.DNSNames {
		all = append(all, strings.ToLower(name))
	}
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, addr.Unmap().String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// signed reports whether the leaf is what the order was for.
func (o *order) signed(leaf *x509.Certificate) bool {
	csr, err := x509.ParseCertificateRequest(o.CSR)
	return err == nil && bytes.Equal(csr.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo)
}
