// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
)

// Errors of Verify.
var (
	// ErrUnknownSigner means that the signer is not among the trusted ones.
	ErrUnknownSigner = errors.New("seal: signed by a key that is not trusted")
	// ErrSignature means that the bytes are not what the signer signed.
	ErrSignature = errors.New("seal: wrong signature")
)

// algorithmEd25519 numbers Ed25519 on the wire; another algorithm, such as
// ML-DSA, gets another number.
const algorithmEd25519 = 1

// SignatureSize is the length of a signature block: algorithm, key id and the
// Ed25519 signature (RFC 8032 section 5.1.6).
const SignatureSize = 1 + len(KeyID{}) + ed25519.SignatureSize

// A SigningKey signs.
type SigningKey struct {
	redacted
	key    ed25519.PrivateKey
	public *VerifyKey
}

// GenerateSigningKey makes a new signing key from the system's random source.
func GenerateSigningKey() (*SigningKey, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("seal: making a signing key: %w", err)
	}
	return newSigningKey(k), nil
}

func newSigningKey(k ed25519.PrivateKey) *SigningKey {
	return &SigningKey{key: k, public: newVerifyKey(k.Public().(ed25519.PublicKey))}
}

// NewSigningKey returns the signing key that follows from a secret seed of 32
// bytes (RFC 8032 section 5.1.5).
func NewSigningKey(seed []byte) (*SigningKey, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("seal: a seed has %d bytes, not %d", ed25519.SeedSize, len(seed))
	}
	return newSigningKey(ed25519.NewKeyFromSeed(seed)), nil
}

// Public returns the key that checks this key's signatures.
func (k *SigningKey) Public() *VerifyKey { return k.public }

// Sign returns the signature block over message. The context says what kind of
// message it is, so that a signature over one kind is never good for another;
// it must not contain a NUL byte.
func (k *SigningKey) Sign(context string, message []byte) []byte {
	out := make([]byte, 0, SignatureSize)
	out = append(out, algorithmEd25519)
	out = append(out, k.public.id[:]...)
	return append(out, ed25519.Sign(k.key, signed(context, message))...)
}

// signed puts the context before the message. It is not Ed25519ctx (RFC 8032
// section 5.1), which FIPS-only mode refuses.
func signed(context string, message []byte) []byte {
	out := make([]byte, 0, len(context)+1+len(message))
	out = append(out, context...)
	out = append(out, 0)
	return append(out, message...)
}

// A VerifyKey checks signatures.
type VerifyKey struct {
	key ed25519.PublicKey
	id  KeyID
}

func newVerifyKey(k ed25519.PublicKey) *VerifyKey {
	return &VerifyKey{k, newKeyID("Ed25519", k)}
}

// NewVerifyKey parses what Bytes returned.
func NewVerifyKey(b []byte) (*VerifyKey, error) {
	if len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("seal: a public signing key has %d bytes, not %d", ed25519.PublicKeySize, len(b))
	}
	return newVerifyKey(bytes.Clone(b)), nil
}

// Bytes returns the key's 32 bytes (RFC 8032 section 5.1.2).
func (v *VerifyKey) Bytes() []byte { return bytes.Clone(v.key) }

// ID returns the id that this key and its signing half share.
func (v *VerifyKey) ID() KeyID { return v.id }

// Equal reports whether both are the same key.
func (v *VerifyKey) Equal(o *VerifyKey) bool { return o != nil && bytes.Equal(v.key, o.key) }

// Verify checks a signature block over message against the trusted keys and
// returns the id of the one that made it. The error is ErrUnknownSigner or
// ErrSignature. With no trusted keys everything is refused.
func Verify(trusted []*VerifyKey, context string, message, signature []byte) (KeyID, error) {
	var id KeyID
	if len(signature) != SignatureSize || signature[0] != algorithmEd25519 {
		return id, fmt.Errorf("%w: not an Ed25519 signature block", ErrSignature)
	}
	copy(id[:], signature[1:])
	for _, v := range trusted {
		if v.id == id {
			if !ed25519.Verify(v.key, signed(context, message), signature[1+len(id):]) {
				return id, ErrSignature
			}
			return id, nil
		}
	}
	return id, fmt.Errorf("%w: key %s", ErrUnknownSigner, id)
}
