// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// ErrPassphrase means that an encrypted private key could not be decrypted: the
// passphrase is wrong or, which cannot be told apart, the file is damaged.
var ErrPassphrase = errors.New("the passphrase is wrong, or the key is damaged")

var (
	errNoPassphrase = errors.New("the key is encrypted, and there is no passphrase; set Options.Passphrase, or decrypt the key with: openssl pkey -in FILE -out NEW")
	errAsking       = errors.New("the passphrase is not to be had")
	errConvert      = errors.New("convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -in FILE -out NEW")
)

// maxIterations bounds the work that a file can ask for, to some seconds. OpenSSL
// writes 2048, and OWASP's advice for passphrases of people is at most 1.4 million
// (Password Storage Cheat Sheet, for PBKDF2 with SHA-1).
const maxIterations = 10_000_000

// Object identifiers of RFC 8018, appendices B and C, and of RFC 7914, section 7.
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
)

// prfs are the pseudorandom functions of PBKDF2: HMAC with these hashes.
var prfs = map[string]func() hash.Hash{
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// ciphers are the encryption schemes, all in CBC mode with the padding of PKCS #7.
var ciphers = map[string]struct {
	keySize int // bytes
	make    func(key []byte) (cipher.Block, error)
}{
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
}

// decryptFile is decrypt with the passphrase for the file.
func decryptFile(file string, der []byte, passphrase func(file string) ([]byte, error)) ([]byte, error) {
	if passphrase == nil {
		return nil, fmt.Errorf("%s: %w", file, errNoPassphrase)
	}
	secret, err := passphrase(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", file, errAsking, err)
	}
	pkcs8, err := decrypt(der, secret)
	if err != nil {
		return nil, fmt.Errorf("%s: decrypting the key: %w", file, err)
	}
	return pkcs8, nil
}

// decrypt decrypts an EncryptedPrivateKeyInfo (RFC 5958, section 3) by PBES2 (RFC 8018,
// section 6.2) and returns the PrivateKeyInfo in it.
func decrypt(der, passphrase []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if err := unmarshal(der, &info); err != nil {
		return nil, err
	}
	if !info.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("the scheme %s is not PBES2; %w", info.Algorithm.Algorithm, errConvert)
	}
	var params struct{ KDF, Scheme pkix.AlgorithmIdentifier }
	if err := unmarshal(info.Algorithm.Parameters.FullBytes, &params); err != nil {
		return nil, err
	}
	scheme, ok := ciphers[params.Scheme.Algorithm.String()]
	if !ok {
		return nil, fmt.Errorf("the cipher %s is neither AES nor Triple DES in CBC mode; %w", params.Scheme.Algorithm, errConvert)
	}
	var iv []byte
	if err := unmarshal(params.Scheme.Parameters.FullBytes, &iv); err != nil {
		return nil, err
	}
	key, err := deriveKey(params.KDF, passphrase, scheme.keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := scheme.make(key)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(iv) != size || len(info.Data) == 0 || len(info.Data)%size != 0 {
		return nil, fmt.Errorf("an initialization vector of %d bytes and a text of %d do not fit blocks of %d", len(iv), len(info.Data), size)
	}
	plain := make([]byte, len(info.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, info.Data)
	// Who can exchange the file can exchange the key, so it tells nobody more that
	// wrong padding is refused.
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > size {
		clear(plain)
		return nil, ErrPassphrase
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			clear(plain)
			return nil, ErrPassphrase
		}
	}
	pkcs8 := plain[:len(plain)-pad]
	// A wrong passphrase leaves right padding in one case of 256, but never a
	// PrivateKeyInfo. Whether the key in it can be used is for others to say.
	var inner struct {
		Version    int
		Algorithm  pkix.AlgorithmIdentifier
		PrivateKey []byte
	}
	if err := unmarshal(pkcs8, &inner); err != nil {
		clear(plain)
		return nil, ErrPassphrase
	}
	clear(inner.PrivateKey)
	return pkcs8, nil
}

// deriveKey is PBKDF2 (RFC 8018, section 5.2).
func deriveKey(kdf pkix.AlgorithmIdentifier, passphrase []byte, size int) ([]byte, error) {
	switch {
	case kdf.Algorithm.Equal(oidScrypt):
		return nil, fmt.Errorf("its key is derived by scrypt, not PBKDF2; %w", errConvert)
	case !kdf.Algorithm.Equal(oidPBKDF2):
		return nil, fmt.Errorf("its key is derived by %s, not PBKDF2; %w", kdf.Algorithm, errConvert)
	}
	var params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := unmarshal(kdf.Parameters.FullBytes, &params); err != nil {
		return nil, err
	}
	prf := sha1.New // the default
	if len(params.PRF.Algorithm) > 0 {
		var ok bool
		if prf, ok = prfs[params.PRF.Algorithm.String()]; !ok {
			return nil, fmt.Errorf("the pseudorandom function %s of PBKDF2 is not HMAC with SHA-1 or SHA-2; %w", params.PRF.Algorithm, errConvert)
		}
	}
	if params.Iterations < 1 || params.Iterations > maxIterations {
		return nil, fmt.Errorf("PBKDF2 with %d iterations; 1 to %d are allowed; %w", params.Iterations, maxIterations, errConvert)
	}
	if params.KeyLength != 0 && params.KeyLength != size {
		return nil, fmt.Errorf("PBKDF2 gives %d bytes, and the cipher takes %d", params.KeyLength, size)
	}
	return pbkdf2.Key(prf, string(passphrase), params.Salt, params.Iterations, size)
}

// unmarshal parses DER and refuses what follows it.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes too many", len(rest))
	}
	if err != nil {
		return fmt.Errorf("parsing the encrypted key: %w", err)
	}
	return nil
}
