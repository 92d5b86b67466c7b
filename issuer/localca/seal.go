// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
	"github.com/keyturn/keyturn/seal"
)

// The encoding inside a sealed text: one byte of version, then four parts, each
// as four bytes of length (big endian) and that many bytes: the root's
// certificate (DER) and key (PKCS #8), the intermediate's certificate and key.
// Nothing follows.
const (
	sealedVersion = 1
	parts         = 4
	// maxPart bounds a part, in bytes: an RSA key of 8192 bits has some 4,700.
	maxPart = 16 << 10
)

// ErrCorrupt means that what was sealed is not a CA: the text was opened, but
// what is in it does not parse or does not fit together.
var ErrCorrupt = errors.New("the sealed CA is corrupt")

// Seal returns the whole CA, keys included, sealed to a key and bound to the
// associated data, which has to be presented again to Open. See [seal.PublicKey.Seal].
// The result has 3 to 20 KB, by the type of the keys.
func (ca *CA) Seal(to *seal.PublicKey, associated []byte) ([]byte, error) {
	plain, err := ca.encode()
	if err != nil {
		return nil, fmt.Errorf("sealing %s: %w", ca, err)
	}
	defer clear(plain)
	sealed, err := to.Seal(associated, plain)
	if err != nil {
		return nil, fmt.Errorf("sealing %s: %w", ca, err)
	}
	return sealed, nil
}

// Open returns the CA in a sealed text. Certificates and keys come from the
// text; how certificates are issued comes from c. c.Name, c.KeyType and the name
// constraints, where they are set, must be those of the CA: they cannot be
// changed afterwards.
//
// The error is one of [seal.Open], or ErrCorrupt, or says what in c does not
// fit. A CA that has ended opens: see ErrEnded.
func Open(keys []*seal.PrivateKey, associated, sealed []byte, c Config) (*CA, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	plain, err := seal.Open(keys, associated, sealed)
	if err != nil {
		return nil, fmt.Errorf("opening the CA: %w", err)
	}
	defer clear(plain)
	ca, err := decode(plain)
	if err != nil {
		return nil, fmt.Errorf("opening the CA: %w: %w", ErrCorrupt, err)
	}
	if err := ca.fits(c); err != nil {
		return nil, err
	}
	if ca.limits, err = c.limits(); err != nil {
		return nil, err
	}
	bound, err := policy.ConstraintsOf(ca.intermediate.cert)
	if err != nil {
		return nil, fmt.Errorf("opening the CA: %w", err)
	}
	if ca.limits.constraints != nil && !ca.limits.constraints.Equal(bound) {
		return nil, fmt.Errorf("opening the CA: the name constraints of %s are not those of the configuration; they cannot change: configure another issuer", ca)
	}
	ca.limits.constraints, ca.config = bound, c
	return ca, nil
}

func (ca *CA) fits(c Config) error {
	if c.Name != "" && !strings.HasPrefix(ca.root.cert.Subject.CommonName, c.Name+rootTitle) {
		return fmt.Errorf("opening the CA: it is %q, but the configuration names it %q; a CA's name cannot change: configure another issuer", ca, c.Name)
	}
	if c.KeyType == "" {
		return nil
	}
	for _, a := range []authority{ca.root, ca.intermediate} {
		if is := issuer.KeyTypeOf(a.key.Public()); is != c.KeyType {
			return fmt.Errorf("opening the CA: the keys of %s are %s, but the configuration says %s; a CA's keys cannot change: configure another issuer", ca, is, c.KeyType)
		}
	}
	return nil
}

func (ca *CA) encode() ([]byte, error) {
	out := make([]byte, 0, 1+parts*(4+maxPart)) // never grown, so that no copy of a key is left behind
	out = append(out, sealedVersion)
	for _, a := range []authority{ca.root, ca.intermediate} {
		key, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			return nil, err
		}
		for _, part := range [][]byte{a.cert.Raw, key} {
			out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
			out = append(out, part...)
		}
		clear(key)
	}
	return out, nil
}

func decode(b []byte) (*CA, error) {
	if len(b) == 0 || b[0] != sealedVersion {
		return nil, fmt.Errorf("its version is unknown to this program, which knows %d", sealedVersion)
	}
	b = b[1:]
	var part [parts][]byte
	for i := range part {
		if len(b) < 4 {
			return nil, errors.New("it is cut short")
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if n > maxPart || int(n) > len(b) {
			return nil, errors.New("a length is wrong")
		}
		part[i], b = b[:n], b[n:]
	}
	if len(b) != 0 {
		return nil, errors.New("there is data after its end")
	}
	root, err := parseAuthority(part[0], part[1])
	if err != nil {
		return nil, fmt.Errorf("the root: %w", err)
	}
	intermediate, err := parseAuthority(part[2], part[3])
	if err != nil {
		return nil, fmt.Errorf("the intermediate: %w", err)
	}
	return &CA{root: root, intermediate: intermediate}, linked(root.cert, intermediate.cert)
}

func parseAuthority(certDER, keyDER []byte) (a authority, err error) {
	// The certificate keeps its input, which is cleared after the opening.
	if a.cert, err = x509.ParseCertificate(bytes.Clone(certDER)); err != nil {
		return a, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return a, errors.New("its key does not parse") // not the cause: it could quote the key
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return a, errors.New("its key cannot sign")
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(a.cert.PublicKey) {
		return a, errors.New("its key is not the certificate's")
	}
	if !a.cert.BasicConstraintsValid || !a.cert.IsCA || a.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return a, errors.New("its certificate is not a CA's")
	}
	a.key = signer
	return a, nil
}

// linked checks that root is self-signed, that it signed intermediate, and that
// both have the path lengths of New.
func linked(root, intermediate *x509.Certificate) error {
	switch {
	case root.CheckSignatureFrom(root) != nil || !bytes.Equal(root.RawSubject, root.RawIssuer):
		return errors.New("the root is not self-signed")
	case intermediate.CheckSignatureFrom(root) != nil || !bytes.Equal(intermediate.RawIssuer, root.RawSubject):
		return errors.New("the intermediate is not signed by the root")
	case root.MaxPathLen != 1 || intermediate.MaxPathLen != 0:
		return errors.New("its path lengths are wrong")
	case intermediate.NotAfter.After(root.NotAfter):
		return errors.New("the intermediate outlives the root")
	}
	return nil
}
