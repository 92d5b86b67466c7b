// SPDX-License-Identifier: Apache-2.0

package acme

import (
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
	"net/url"
	"strings"

	ca "github.com/keyturn/keyturn/issuer/acme"
)

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
	if text == nil {
		if text, err = k.newAccount(ctx); err != nil {
			return nil, err
		}
	}
	a, err := ca.ParseAccount(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to make a new account", k.accountKey(), err)
	}
	return a, nil
}

// newAccount keeps a new account and returns what is kept then: in a directory, where
// other names may have the same CA, that of whoever came first.
func (k keeper) newAccount(ctx context.Context) ([]byte, error) {
	a, err := ca.NewAccount()
	if err != nil {
		return nil, err
	}
	text, err := a.Marshal()
	if err != nil {
		return nil, err
	}
	put := k.cache.Put
	if dir, ok := k.cache.(dirCache); ok {
		put = dir.create
	}
	err = put(ctx, k.accountKey(), text)
	if errors.Is(err, fs.ErrExist) {
		return k.get(ctx, k.accountKey())
	}
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", k.accountKey(), err)
	}
	return text, nil
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
