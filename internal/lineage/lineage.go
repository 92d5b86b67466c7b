// SPDX-License-Identifier: Apache-2.0

// Package lineage reads what other ACME clients keep in files: a certificate's
// chain and its private key. [Certbot] finds the pairs that certbot keeps, and
// [Pair.Read] reads and checks one.
//
// No error shows any of a private key. Nothing here is kept, and nothing is
// written.
package lineage

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/durable"
)

// maxFile is far more than a chain or a key needs, in bytes.
const maxFile = 1 << 20

// A Pair is where a chain and its private key are.
type Pair struct {
	// Name is what people call it: that of certbot's lineage, or the chain's file.
	Name string
	// Chain and Key are files of PEM, or links to such.
	Chain, Key string
}

// Read returns the chain, DER with the leaf first, and the leaf's private key. A
// key of another certificate is an error.
func (p Pair) Read() (chain [][]byte, key crypto.Signer, err error) {
	certs, err := durable.ReadFile(p.Chain, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the chain: %w", err)
	}
	text, err := durable.ReadFile(p.Key, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the private key: %w", err)
	}
	defer clear(text)
	if bytes.Contains(text, []byte("ENCRYPTED")) { // PKCS #8, or RFC 1421
		return nil, nil, fmt.Errorf("the private key in %s is encrypted: decrypt it first, for instance with openssl pkey", p.Key)
	}
	pair, err := tls.X509KeyPair(certs, text)
	if err != nil {
		return nil, nil, fmt.Errorf("the chain in %s and the private key in %s: %s", p.Chain, p.Key, strings.TrimPrefix(err.Error(), "tls: "))
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("the private key in %s cannot sign", p.Key)
	}
	return pair.Certificate, key, nil
}

// Exposed says what to do about a key that its group or others may read; "" if they
// may not, and where nobody can tell.
func (p Pair) Exposed() string {
	info, err := os.Stat(p.Key)
	if err != nil || info.Mode().Perm()&0o044 == 0 {
		return ""
	}
	return fmt.Sprintf("%s holds a private key but has mode %04o: others can read it; run: chmod 600 %[1]s", p.Key, info.Mode().Perm())
}

// The names of certbot's folder of lineages, and of a lineage's files.
const (
	live    = "live"
	chainOf = "fullchain.pem"
	keyOf   = "privkey.pem"
)

// Certbot returns the lineages in a directory of certbot's, by name: of its
// configuration, such as /etc/letsencrypt, or of one lineage, such as
// /etc/letsencrypt/live/example.com. Their files need not be there.
func Certbot(dir string) ([]Pair, error) {
	if exists(filepath.Join(dir, chainOf)) || exists(filepath.Join(dir, keyOf)) {
		return []Pair{of(dir)}, nil
	}
	entries, err := os.ReadDir(filepath.Join(dir, live))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no directory of certbot's: it has neither %s/ nor %s", dir, live, chainOf)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for certbot's certificates: %w", err)
	}
	var pairs []Pair
	for _, e := range entries {
		path := filepath.Join(dir, live, e.Name())
		if info, err := os.Stat(path); err == nil && info.IsDir() { // certbot puts a README there, too
			pairs = append(pairs, of(path))
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("there is no certificate in %s", filepath.Join(dir, live))
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return cmp.Compare(a.Name, b.Name) })
	return pairs, nil
}

// of returns the lineage in a directory.
func of(dir string) Pair {
	return Pair{Name: filepath.Base(filepath.Clean(dir)), Chain: filepath.Join(dir, chainOf), Key: filepath.Join(dir, keyOf)}
}

// exists reports whether there is a file, or a link to none.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
