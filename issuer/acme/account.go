// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// An Account is a CA's customer: whoever has its key. It is not changed once it is
// in use; a changed one is a copy. It prints without its keys.
type Account struct {
	// Key signs what is asked: ECDSA P-256 or P-384, or RSA with 2048 bits or more.
	Key crypto.Signer
	// URL is the account's at the CA; "" if it was not asked for yet.
	URL string
	// Next is the key of a roll-over that was begun and of which it is not known
	// whether the CA made it; nil if there is none. Register finds out and ends it.
	Next crypto.Signer
}

// NewAccount returns an account with a new ECDSA P-256 key, which all CAs take. The
// CA does not know it yet.
func NewAccount() (*Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an account key: %w", err)
	}
	return &Account{Key: key}, nil
}

func (a *Account) check() error {
	if a.Key == nil {
		return errors.New("the account has no key")
	}
	if err := checkAccountKey(a.Key); err != nil || a.Next == nil {
		return err
	}
	return checkAccountKey(a.Next)
}

// checkAccountKey refuses what JWS or CAs do not take (RFC 7518 section 3.1).
func checkAccountKey(key crypto.Signer) error {
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P256() || public.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if public.N.BitLen() >= 2048 {
			return nil
		}
	}
	return errors.New("the account's key is neither ECDSA P-256 or P-384 nor RSA with at least 2048 bits, which is what CAs take")
}

// storedAccount is an account's form outside of the process.
type storedAccount struct {
	Key  []byte `json:"key"` // PKCS #8
	URL  string `json:"url,omitempty"`
	Next []byte `json:"next,omitempty"` // PKCS #8
}

// Marshal returns the account in the form that ParseAccount reads. It is secret:
// the caller seals it before it leaves the process.
func (a *Account) Marshal() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("encoding an account: %w", err)
	}
	stored := storedAccount{URL: a.URL}
	var err error
	if stored.Key, err = x509.MarshalPKCS8PrivateKey(a.Key); err != nil {
		return nil, fmt.Errorf("encoding an account's key: %w", err)
	}
	if a.Next != nil {
		if stored.Next, err = x509.MarshalPKCS8PrivateKey(a.Next); err != nil {
			return nil, fmt.Errorf("encoding an account's next key: %w", err)
		}
	}
	return json.Marshal(stored)
}

// ParseAccount reads what Marshal returned. The error has nothing of it in it.
func ParseAccount(text []byte) (*Account, error) {
	var stored storedAccount
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return nil, errors.New("reading an account: it is not in the form that Keyturn writes")
	}
	a := &Account{URL: stored.URL}
	var err error
	if a.Key, err = parseKey(stored.Key); err != nil {
		return nil, err
	}
	if stored.Next != nil {
		if a.Next, err = parseKey(stored.Next); err != nil {
			return nil, err
		}
	}
	return a, a.check()
}

func parseKey(pkcs8 []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("reading an account: its key is no PKCS #8")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("reading an account: its key cannot sign")
	}
	return signer, nil
}

// String returns the account's URL.
func (a Account) String() string {
	if a.URL == "" {
		return "an account that is not made yet"
	}
	return a.URL
}

// Format prints what String returns whatever the verb: the keys never print.
func (a Account) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, a.String()) }

// LogValue logs what String returns.
func (a Account) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText encodes what String returns, in JSON, YAML and XML alike.
func (a Account) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
