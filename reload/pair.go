// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn"
)

// maxPair is the most that each file of a pair may have. The Store takes no more for
// both, and real ones have less than 20 KiB.
const maxPair = 256 << 10

// KeyPair keeps the certificate of id in store as two files say: certFile has the
// chain, leaf first or in any order, and keyFile the private key, both as PEM. What is
// accepted is what [keyturn.Store.PutPEM] accepts, and encrypted keys, see
// [Options].Passphrase.
func KeyPair(store *keyturn.Store, id, certFile, keyFile string) Source {
	return &pair{store, id, certFile, keyFile}
}

// PEM is [KeyPair] for one file that has the chain and the key, in any order.
func PEM(store *keyturn.Store, id, file string) Source { return &pair{store, id, file, file} }

// A pair is a Source, and the only item of it.
type pair struct {
	store             *keyturn.Store
	id                string
	certFile, keyFile string // the same if it is one file
}

type pairKey struct {
	store *keyturn.Store
	id    string
}

func (p *pair) items() ([]item, []string, error) { return []item{p}, nil, nil }
func (p *pair) key() any                         { return pairKey{p.store, p.id} }

func (p *pair) held() bool {
	_, ok := p.store.Info(p.id)
	return ok
}

func (p *pair) paths() []string {
	if p.certFile == p.keyFile {
		return []string{p.certFile}
	}
	return []string{p.certFile, p.keyFile}
}

func (p *pair) String() string {
	if p.certFile == p.keyFile {
		return fmt.Sprintf("pair %.100q of %s", p.id, p.certFile)
	}
	return fmt.Sprintf("pair %.100q of %s and %s", p.id, p.certFile, p.keyFile)
}

// read reads the certificate, then the key. Should both be swapped in between, they
// mismatch, and are read again: see Watcher.settle.
func (p *pair) read() (c content, err error) {
	for _, path := range p.paths() {
		var data []byte
		if data, c.mode, err = readFile(path, maxPair); err != nil {
			c.clear()
			return content{}, err
		}
		c.parts = append(c.parts, data)
	}
	return c, nil
}

func (p *pair) check(c content, passphrase func(string) ([]byte, error)) (*version, error) {
	chain, key := c.parts[0], c.parts[len(c.parts)-1]
	certs, err := certificates(chain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.certFile, err)
	}
	block, err := privateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.keyFile, err)
	}
	defer clear(block.Bytes)

	// A Store of no further use makes all the checks that the real one will make,
	// and nobody hears of what it refuses.
	var scratch keyturn.Store
	var warnings []string
	switch {
	case block.Headers["DEK-Info"] != "": // RFC 1421, section 4.6.1.3
		err = fmt.Errorf("%s: the key is encrypted in the old form of OpenSSL, whose derivation is weak; %w", p.keyFile, errConvert)
	case block.Type == "ENCRYPTED PRIVATE KEY":
		var pkcs8 []byte
		if pkcs8, err = decryptFile(p.keyFile, block.Bytes, passphrase); err == nil {
			err = unwrap(scratch.PutDER(p.id, certs, pkcs8))
			clear(pkcs8)
		}
	default:
		if hasModes && c.mode.Perm()&0o077 != 0 {
			// Not refused: Kubernetes mounts secrets 0644 unless told otherwise, and
			// Debian gives keys to a group.
			warnings = append(warnings, fmt.Sprintf("%s holds a private key, not encrypted, and has mode %04o: others than its owner can reach it", p.keyFile, c.mode.Perm()))
		}
		err = unwrap(scratch.PutPEM(p.id, chain, key))
	}
	if err != nil {
		return nil, err
	}
	cert, _ := scratch.Get(p.id)
	return &version{
		identity: sumOf(cert.Certificate...),
		put:      func() error { return p.store.Put(p.id, *cert) },
		message:  "certificate is live",
		attrs:    []any{"id", p.id, "names", altNames(cert.Leaf), "serial", fmt.Sprintf("%x", cert.Leaf.SerialNumber), "not_after", cert.Leaf.NotAfter},
		warnings: warnings,
	}, nil
}

// unwrap takes off what the scratch Store says about which certificate it is, which
// String says too.
func unwrap(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// altNames returns all that a peer could ask for, or believe, the certificate by.
func altNames(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	return names
}
