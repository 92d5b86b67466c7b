// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// Limits of a certificate.
const (
	// MaxChain is the largest number of certificates in a chain.
	MaxChain = 10
	// MaxNames is the largest number of names in a certificate.
	MaxNames = 1000
	maxName  = 253 // RFC 1035 section 2.3.4
	// maxWord bounds names of groups, issuers and the like, in bytes.
	maxWord = 63
)

// A Version orders the states of a managed certificate: first by epoch, then by
// generation. It only ever grows.
type Version struct {
	// Epoch is the log's; a restore raises it. The first is 1.
	Epoch uint64 `json:"epoch"`
	// Generation counts the certificates of one managed certificate. The first
	// is 1; 0 is before it.
	Generation uint64 `json:"generation"`
}

// Less reports whether v comes before o.
func (v Version) Less(o Version) bool {
	return v.Epoch < o.Epoch || v.Epoch == o.Epoch && v.Generation < o.Generation
}

// String returns "EPOCH.GENERATION".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Epoch, v.Generation) }

// Certificate is one generation of a managed certificate, for its group.
type Certificate struct {
	Group string
	ID    string
	Version
	// Names are the leaf's, so that an index can be built without parsing it.
	Names []string
	// NotBefore and NotAfter are the leaf's.
	NotBefore, NotAfter time.Time
	// Algorithm is the leaf's public key algorithm as x509.PublicKeyAlgorithm
	// prints it: "ECDSA", "RSA", "Ed25519".
	Algorithm string
	// Client says that the leaf may be used by TLS clients, too.
	Client bool
	// Chain is DER, leaf first.
	Chain [][]byte
	// SealedKey is the leaf's private key (PKCS #8), sealed to the group.
	SealedKey []byte
}

const (
	certGroup tag = iota + 1
	certID
	certEpoch
	certGeneration
	certName
	certNotBefore
	certNotAfter
	certChain
	certKey
	certAlgorithm
	certClient
)

func (c *Certificate) kind() Type  { return TypeCertificate }
func (c *Certificate) key() string { return CertificateKey(c.Group, c.ID) }

func (c *Certificate) fields(f *codec) {
	f.string(certGroup, &c.Group, maxWord)
	f.string(certID, &c.ID, maxWord)
	f.uint(certEpoch, &c.Epoch)
	f.uint(certGeneration, &c.Generation)
	f.strings(certName, &c.Names, MaxNames, maxName)
	f.time(certNotBefore, &c.NotBefore)
	f.time(certNotAfter, &c.NotAfter)
	f.blobs(certChain, &c.Chain, MaxChain)
	f.bytes(certKey, &c.SealedKey)
	f.string(certAlgorithm, &c.Algorithm, maxWord)
	f.bool(certClient, &c.Client)
}

func (c *Certificate) check() error {
	switch {
	case len(c.Chain) == 0 || len(c.Chain) > MaxChain:
		return fmt.Errorf("a chain of %d certificates: 1 to %d are allowed", len(c.Chain), MaxChain)
	case len(c.Names) > MaxNames:
		return fmt.Errorf("%d names: at most %d are allowed", len(c.Names), MaxNames)
	case len(c.SealedKey) == 0:
		return errors.New("no private key")
	}
	return checkVersion(c.Group, c.ID, c.Version)
}

func checkVersion(group, id string, v Version) error {
	if err := CheckName(group); err != nil {
		return fmt.Errorf("the group: %w", err)
	}
	if err := CheckID(id); err != nil {
		return err
	}
	if v.Epoch == 0 || v.Generation == 0 {
		return fmt.Errorf("version %s: both parts start at 1", v)
	}
	return nil
}

// SealKey seals the private key (PKCS #8 DER) to the group's key. It must be
// called last: the result is bound to every other field but those that only
// repeat what stands in the leaf.
func (c *Certificate) SealKey(tenant string, to *seal.PublicKey, pkcs8 []byte) (err error) {
	c.SealedKey, err = to.Seal(c.associated(tenant), pkcs8)
	return err
}

// OpenKey returns the private key (PKCS #8 DER), opened with the one of the
// group's keys that it was sealed to. The errors are those of seal.Open.
func (c *Certificate) OpenKey(tenant string, keys []*seal.PrivateKey) ([]byte, error) {
	return seal.Open(keys, c.associated(tenant), c.SealedKey)
}

// associated binds the sealed key to its place: it opens in no other tenant,
// group, id, version or type, and beside no other chain.
func (c *Certificate) associated(tenant string) []byte {
	chain := sha256.New()
	for _, der := range c.Chain {
		_ = binary.Write(chain, binary.BigEndian, uint32(len(der))) // a hash takes all
		chain.Write(der)
	}
	return associated(TypeCertificate, tenant, c.key(), func(f *codec) {
		f.uint(certEpoch, &c.Epoch)
		f.uint(certGeneration, &c.Generation)
		f.put(certChain, chain.Sum(nil))
	})
}

// associated is the data that bind a sealed text to where it belongs.
func associated(t Type, tenant, key string, more func(*codec)) []byte {
	var inner codec
	more(&inner)
	c := codec{out: []byte{version}}
	kind := uint64(t)
	c.uint(tagType, &kind)
	c.string(tagTenant, &tenant, maxWord)
	c.string(tagKey, &key, maxKey)
	c.put(tagBody, inner.out)
	return c.out
}

// Removal ends a managed certificate: replicas drop it. It takes the next
// generation, so that no earlier certificate can come back.
type Removal struct {
	Group string
	ID    string
	Version
}

func (r *Removal) kind() Type  { return TypeRemoval }
func (r *Removal) key() string { return CertificateKey(r.Group, r.ID) }

func (r *Removal) fields(f *codec) {
	f.string(certGroup, &r.Group, maxWord)
	f.string(certID, &r.ID, maxWord)
	f.uint(certEpoch, &r.Epoch)
	f.uint(certGeneration, &r.Generation)
}

func (r *Removal) check() error { return checkVersion(r.Group, r.ID, r.Version) }
