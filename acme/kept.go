// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/issuer"
	ca "github.com/keyturn/keyturn/issuer/acme"
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
	// Leaf is the SHA-256 of the certificate that Made, Issued, Window and Ask are
	// about, in hexadecimal.
	Leaf   string    `json:"leaf,omitempty"`
	Made   request   `json:"made,omitzero"`
	Issued time.Time `json:"issued,omitzero"`
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

// A pair is a certificate with its chain and key, and the PEM that it is kept as.
type pair struct {
	pem  []byte
	leaf *x509.Certificate
}

// fingerprint is what state.Leaf has for the pair.
func (p *pair) fingerprint() string {
	h := sha256.Sum256(p.leaf.Raw)
	return hex.EncodeToString(h[:])
}

// newPair has the key first, as autocert and HAProxy have it.
func newPair(key crypto.Signer, chain [][]byte) (*pair, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return parsePair(text)
}

func parsePair(text []byte) (*pair, error) {
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	return &pair{text, cert.Leaf}, nil
}

// A keeper knows under which keys things are kept.
type keeper struct {
	cache Cache
	miss  error  // of Config; nil if there is none
	name  string // of the set of names
	ca    string // the directory's URL
}

func (k keeper) pairKey() string  { return k.name + ".pem" }
func (k keeper) stateKey() string { return k.name + ".json" }

// accountKey has the CA's host in it for people, and its whole URL for the rest.
func (k keeper) accountKey() string {
	h := sha256.Sum256([]byte(k.ca))
	return "account-" + fileName(k.host()) + "-" + hex.EncodeToString(h[:4]) + ".json"
}

// host is the CA, for people.
func (k keeper) host() string {
	u, err := url.Parse(k.ca)
	if err != nil { // complete has parsed it
		return k.ca
	}
	return u.Hostname()
}

// fileName makes of a normal name one that every file system takes.
func fileName(name string) string {
	return strings.NewReplacer("*", "+", ":", "_").Replace(name)
}

// get returns nil without an error if there is nothing.
func (k keeper) get(ctx context.Context, key string) ([]byte, error) {
	data, err := k.cache.Get(ctx, key)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, ErrCacheMiss), errors.Is(err, fs.ErrNotExist), k.miss != nil && errors.Is(err, k.miss):
		return nil, nil
	case k.miss == nil && !isDir(k.cache):
		return nil, fmt.Errorf("reading %s from the cache: %w; if this means that there is nothing, set CacheMiss to that error", key, err)
	}
	return nil, fmt.Errorf("reading %s: %w", key, err)
}

func isDir(c Cache) bool {
	_, ok := c.(dirCache)
	return ok
}

// load returns what is kept; the pair is nil if there is none, or none of use, of which
// broken says why.
func (k keeper) load(ctx context.Context) (p *pair, st state, broken, err error) {
	text, err := k.get(ctx, k.stateKey())
	if err != nil {
		return nil, st, nil, err
	}
	if text != nil {
		if err := json.Unmarshal(text, &st); err != nil {
			return nil, st, nil, fmt.Errorf("reading %s: it is not what was written there (%w); remove it to begin anew", k.stateKey(), err)
		}
	}
	text, err = k.get(ctx, k.pairKey())
	if err != nil || text == nil {
		return nil, st, nil, err
	}
	if p, err = parsePair(text); err != nil {
		return nil, st, fmt.Errorf("%s is of no use: %w", k.pairKey(), err), nil
	}
	st.match(p)
	return p, st, nil, nil
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

func (k keeper) saveState(ctx context.Context, st state) error {
	text, err := json.MarshalIndent(st, "", "\t")
	if err != nil {
		return err
	}
	if err := k.cache.Put(ctx, k.stateKey(), append(text, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", k.stateKey(), err)
	}
	return nil
}

func (k keeper) savePair(ctx context.Context, p *pair) error {
	if err := k.cache.Put(ctx, k.pairKey(), p.pem); err != nil {
		return fmt.Errorf("writing %s: %w", k.pairKey(), err)
	}
	return nil
}

// account returns the account, which is written down before the CA hears of it.
func (k keeper) account(ctx context.Context) (*ca.Account, error) {
	text, err := k.get(ctx, k.accountKey())
	if err != nil {
		return nil, err
	}
	if text != nil {
		a, err := ca.ParseAccount(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w; remove it to make a new account", k.accountKey(), err)
		}
		return a, nil
	}
	a, err := ca.NewAccount()
	if err != nil {
		return nil, err
	}
	return a, k.saveAccount(ctx, a)
}

func (k keeper) saveAccount(ctx context.Context, a *ca.Account) error {
	text, err := a.Marshal()
	if err != nil {
		return err
	}
	if err := k.cache.Put(ctx, k.accountKey(), text); err != nil {
		return fmt.Errorf("writing %s: %w", k.accountKey(), err)
	}
	return nil
}
