// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keyturn/keyturn/internal/durable"
)

// PEM types of the key files. Signing keys use the standard PKCS #8 and PKIX
// encodings (RFC 5958, RFC 8410), so that other tools can read them.
const (
	pemSealing = "KEYTURN HPKE PRIVATE KEY"
	pemSigning = "PRIVATE KEY"
	pemVerify  = "PUBLIC KEY"
)

// maxKeyFile bounds a key file, in bytes: several dozen keys.
const maxKeyFile = 64 << 10

// An Identity is what makes a process a manager: its own signing key, and the
// sealing keys that all managers share, the newest first.
type Identity struct {
	Signing *SigningKey
	Sealing []*PrivateKey
	// Managers are the signing keys of other managers that are trusted. None is
	// needed by whoever signed the first list of them.
	Managers []*VerifyKey
}

// NewIdentity makes an identity with new keys: that of a first manager.
func NewIdentity() (*Identity, error) {
	s, err := GenerateSigningKey()
	if err != nil {
		return nil, err
	}
	k, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	return &Identity{Signing: s, Sealing: []*PrivateKey{k}}, nil
}

// CreateIdentityFile writes the identity to a new file with mode 0600. An
// existing file is never replaced: the error is fs.ErrExist.
func CreateIdentityFile(path string, id *Identity) error {
	der, err := x509.MarshalPKCS8PrivateKey(id.Signing.key)
	if err != nil {
		return fmt.Errorf("seal: encoding a signing key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemSigning, Bytes: der})
	sealing, err := encodePrivateKeys(id.Sealing)
	if err != nil {
		return err
	}
	text = append(text, sealing...)
	trusted, err := encodeVerifyKeys(id.Managers)
	if err != nil {
		return err
	}
	return create(path, append(text, trusted...), durable.PrivateFile)
}

// ReadIdentityFile reads what CreateIdentityFile wrote.
func ReadIdentityFile(path string) (*Identity, error) {
	blocks, err := readPEM(path, true)
	if err != nil {
		return nil, err
	}
	return newIdentity(path, blocks)
}

// ParseIdentity parses the text that CreateIdentityFile writes, where there is no
// file to read it from.
func ParseIdentity(text []byte) (*Identity, error) {
	blocks, err := parsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("reading an identity: %w", err)
	}
	return newIdentity("given as a value", blocks)
}

func newIdentity(path string, blocks []*pem.Block) (*Identity, error) {
	id := new(Identity)
	for _, b := range blocks {
		switch {
		case b.Type == pemSealing:
			k, err := parsePrivateKey(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading the identity %s: %w", path, err)
			}
			id.Sealing = append(id.Sealing, k)
		case b.Type == pemSigning && id.Signing == nil:
			k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading the identity %s: the signing key: %w", path, err)
			}
			ed, ok := k.(ed25519.PrivateKey)
			if !ok {
				return nil, fmt.Errorf("reading the identity %s: the signing key is a %T, not Ed25519", path, k)
			}
			id.Signing = newSigningKey(ed)
		case b.Type == pemVerify:
			k, err := parseVerifyKey(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading the identity %s: a manager's key: %w", path, err)
			}
			id.Managers = append(id.Managers, k)
		default:
			return nil, fmt.Errorf("reading the identity %s: unexpected PEM block %q", path, b.Type)
		}
	}
	if id.Signing == nil || len(id.Sealing) == 0 {
		return nil, fmt.Errorf("reading the identity %s: a signing key (%s) and a sealing key (%s) are needed", path, pemSigning, pemSealing)
	}
	return id, nil
}

// CreatePrivateKeyFile writes keys, the newest first, to a new file with mode
// 0600. An existing file is never replaced: the error is fs.ErrExist.
func CreatePrivateKeyFile(path string, keys ...*PrivateKey) error {
	text, err := encodePrivateKeys(keys)
	if err != nil {
		return err
	}
	return create(path, text, durable.PrivateFile)
}

// WritePrivateKeyFile is CreatePrivateKeyFile for a file that may exist and is
// replaced in one step.
func WritePrivateKeyFile(path string, keys ...*PrivateKey) error {
	text, err := encodePrivateKeys(keys)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(path, text, durable.PrivateFile); err != nil {
		return fmt.Errorf("writing keys to %s: %w", path, err)
	}
	return nil
}

// ReadPrivateKeyFile reads what CreatePrivateKeyFile wrote: at least one key.
func ReadPrivateKeyFile(path string) ([]*PrivateKey, error) {
	blocks, err := readPEM(path, true)
	if err != nil {
		return nil, err
	}
	var keys []*PrivateKey
	for _, b := range blocks {
		if b.Type != pemSealing {
			return nil, fmt.Errorf("reading keys from %s: unexpected PEM block %q", path, b.Type)
		}
		k, err := parsePrivateKey(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading keys from %s: %w", path, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// WriteVerifyKeyFile writes the trusted signers, replacing the file.
func WriteVerifyKeyFile(path string, keys ...*VerifyKey) error {
	text, err := encodeVerifyKeys(keys)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("writing public keys to %s: %w", path, err)
	}
	return nil
}

// ReadVerifyKeyFile reads what WriteVerifyKeyFile wrote: at least one key.
func ReadVerifyKeyFile(path string) ([]*VerifyKey, error) {
	blocks, err := readPEM(path, false)
	if err != nil {
		return nil, err
	}
	var keys []*VerifyKey
	for _, b := range blocks {
		if b.Type != pemVerify {
			return nil, fmt.Errorf("reading public keys from %s: unexpected PEM block %q", path, b.Type)
		}
		k, err := parseVerifyKey(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading public keys from %s: %w", path, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func encodeVerifyKeys(keys []*VerifyKey) ([]byte, error) {
	var text bytes.Buffer
	for _, v := range keys {
		der, err := x509.MarshalPKIXPublicKey(v.key)
		if err != nil {
			return nil, fmt.Errorf("seal: encoding a public key: %w", err)
		}
		_ = pem.Encode(&text, &pem.Block{Type: pemVerify, Bytes: der}) // a bytes.Buffer takes all
	}
	return text.Bytes(), nil
}

func parseVerifyKey(der []byte) (*VerifyKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	ed, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a %T, not Ed25519", k)
	}
	return newVerifyKey(ed), nil
}

func encodePrivateKeys(keys []*PrivateKey) ([]byte, error) {
	var text bytes.Buffer
	for _, k := range keys {
		b, err := k.key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("seal: encoding a private key: %w", err)
		}
		_ = pem.Encode(&text, &pem.Block{Type: pemSealing, Bytes: b}) // a bytes.Buffer takes all
	}
	return text.Bytes(), nil
}

func create(path string, text []byte, mode fs.FileMode) error {
	if err := durable.CreateFile(path, text, mode); err != nil {
		return fmt.Errorf("writing keys to %s: %w", path, err)
	}
	return nil
}

// readPEM returns what a power cut does not take back: it is used.
func readPEM(path string, private bool) ([]*pem.Block, error) {
	read := durable.ReadTrusted
	if private {
		read = durable.ReadPrivate
	}
	text, err := read(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	durable.Settle(path)
	blocks, err := parsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("reading keys from %s: %w", path, err)
	}
	return blocks, nil
}

// parsePEM is strict where encoding/pem skips: nothing but blocks and blank
// space, and at least one block.
func parsePEM(text []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, errors.New("text outside a PEM block")
		}
		b, after := pem.Decode(rest)
		if b == nil {
			return nil, errors.New("a broken PEM block")
		}
		if len(b.Headers) != 0 {
			return nil, fmt.Errorf("PEM block %q has headers: encrypted keys are not supported here", b.Type)
		}
		blocks = append(blocks, b)
		rest = after
	}
	if len(blocks) == 0 {
		return nil, errors.New("no PEM block in it")
	}
	return blocks, nil
}
