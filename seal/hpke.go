// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrOpen is returned when a sealed text cannot be opened: it was changed, it
// was bound to other associated data, or it was sealed to another key.
var ErrOpen = errors.New("seal: cannot open: changed, bound to something else, or sealed to another key")

// ErrNoKey is returned when none of the keys at hand is the one that a sealed
// text was sealed to.
var ErrNoKey = errors.New("seal: sealed to a key that is not at hand")

// A KeyID names a key: the first 8 bytes of the SHA-256 of its algorithm and
// public half. It is a hint for choosing a key, never a proof.
type KeyID [8]byte

// String returns the id as 16 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

func newKeyID(algorithm string, public []byte) (id KeyID) {
	h := sha256.New()
	h.Write([]byte(algorithm))
	h.Write([]byte{0})
	h.Write(public)
	copy(id[:], h.Sum(nil))
	return id
}

// The suite: RFC 9180 section 7 and draft-ietf-hpke-pq. Its number on the wire
// is suiteHybrid; another suite gets another number.
const (
	sealedVersion = 1
	suiteHybrid   = 1
	// encapsulated is the length of the KEM's ciphertext: ML-KEM-768 (FIPS 203,
	// table 3) and X25519.
	encapsulated = 1088 + 32
	tagSize      = 16
	// publicSize is ML-KEM-768's encapsulation key and X25519's public key.
	publicSize = 1184 + 32
)

// Overhead is how many bytes a sealed text is longer than what it holds.
const Overhead = 1 + 1 + len(KeyID{}) + encapsulated + tagSize

var info = []byte("keyturn seal v1")

func kem() hpke.KEM   { return hpke.MLKEM768X25519() }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.AES256GCM() }

// A PublicKey seals to the holders of its PrivateKey.
type PublicKey struct {
	key hpke.PublicKey
	id  KeyID
}

// NewPublicKey parses what Bytes returned.
func NewPublicKey(b []byte) (*PublicKey, error) {
	if len(b) != publicSize {
		return nil, fmt.Errorf("seal: a public key has %d bytes, not %d", publicSize, len(b))
	}
	k, err := kem().NewPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("seal: parsing a public key: %w", err)
	}
	return newPublicKey(k), nil
}

func newPublicKey(k hpke.PublicKey) *PublicKey {
	return &PublicKey{k, newKeyID("MLKEM768-X25519", k.Bytes())}
}

// Bytes returns the key in the encoding of its KEM.
func (p *PublicKey) Bytes() []byte { return p.key.Bytes() }

// ID returns the id that this key and its private half share.
func (p *PublicKey) ID() KeyID { return p.id }

// Equal reports whether both are the same key.
func (p *PublicKey) Equal(o *PublicKey) bool { return o != nil && bytes.Equal(p.Bytes(), o.Bytes()) }

// Seal encrypts plaintext to the key and binds it to the associated data,
// which has to be presented again to open it and is not itself part of the
// result.
func (p *PublicKey) Seal(associated, plaintext []byte) ([]byte, error) {
	enc, sender, err := hpke.NewSender(p.key, kdf(), aead(), info)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	ct, err := sender.Seal(associated, plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	out := make([]byte, 0, 2+len(p.id)+len(enc)+len(ct))
	out = append(out, sealedVersion, suiteHybrid)
	out = append(out, p.id[:]...)
	out = append(out, enc...)
	return append(out, ct...), nil
}

// A PrivateKey opens what was sealed to its PublicKey.
type PrivateKey struct {
	redacted
	key    hpke.PrivateKey
	public *PublicKey
}

// GenerateKey makes a new private key from the system's random source.
func GenerateKey() (*PrivateKey, error) {
	k, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("seal: making a key: %w", err)
	}
	return newPrivateKey(k), nil
}

func parsePrivateKey(b []byte) (*PrivateKey, error) {
	k, err := kem().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("seal: parsing a private key: %w", err)
	}
	return newPrivateKey(k), nil
}

func newPrivateKey(k hpke.PrivateKey) *PrivateKey {
	return &PrivateKey{key: k, public: newPublicKey(k.PublicKey())}
}

// Public returns the key's public half.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Equal reports whether both are the same key, in constant time.
func (k *PrivateKey) Equal(o *PrivateKey) bool {
	if o == nil {
		return false
	}
	a, err1 := k.key.Bytes()
	b, err2 := o.key.Bytes()
	return err1 == nil && err2 == nil && subtle.ConstantTimeCompare(a, b) == 1
}

// Derive returns a 32-byte key that only holders of the private key can know,
// another for each info and salt: HKDF-SHA256 (RFC 5869). What is encrypted
// with it is from a holder, which what is sealed to the public key is not.
func (k *PrivateKey) Derive(info string, salt []byte) ([]byte, error) {
	secret, err := k.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("seal: deriving a key: %w", err)
	}
	return hkdf.Key(sha256.New, secret, salt, "keyturn derived key v1\x00"+info, 32)
}

// SealTo seals the private key itself to another key, for its holder.
func (k *PrivateKey) SealTo(to *PublicKey, associated []byte) ([]byte, error) {
	secret, err := k.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("seal: encoding a private key: %w", err)
	}
	return to.Seal(associated, secret)
}

// OpenPrivateKey opens what SealTo sealed. The errors are those of Open, and
// that of a text that holds no key.
func OpenPrivateKey(keys []*PrivateKey, associated, sealed []byte) (*PrivateKey, error) {
	secret, err := Open(keys, associated, sealed)
	if err != nil {
		return nil, err
	}
	return parsePrivateKey(secret)
}

// Open decrypts a sealed text with the one of keys that it was sealed to. The
// associated data must be what it was sealed with. The error is ErrNoKey if
// none of keys is the right one, else ErrOpen.
func Open(keys []*PrivateKey, associated, sealed []byte) ([]byte, error) {
	id, err := Recipient(sealed)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.public.id == id {
			return k.open(associated, sealed)
		}
	}
	return nil, fmt.Errorf("%w: key %s", ErrNoKey, id)
}

func (k *PrivateKey) open(associated, sealed []byte) ([]byte, error) {
	body := sealed[2+len(KeyID{}):]
	r, err := hpke.NewRecipient(body[:encapsulated], k.key, kdf(), aead(), info)
	if err != nil {
		return nil, ErrOpen
	}
	plain, err := r.Open(associated, body[encapsulated:])
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// Recipient returns the id of the key that a sealed text was sealed to.
func Recipient(sealed []byte) (id KeyID, err error) {
	switch {
	case len(sealed) < Overhead:
		return id, fmt.Errorf("%w: %d bytes are too short for a sealed text", ErrOpen, len(sealed))
	case sealed[0] != sealedVersion || sealed[1] != suiteHybrid:
		return id, fmt.Errorf("%w: version %d, suite %d: made by a newer keyturn?", ErrOpen, sealed[0], sealed[1])
	}
	copy(id[:], sealed[2:])
	return id, nil
}
