// SPDX-License-Identifier: Apache-2.0

package cfssl

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cahttp"
	"github.com/keyturn/keyturn/internal/durable"
)

// DefaultTimeout bounds one request, its answer included.
const DefaultTimeout = 30 * time.Second

// maxKeyFile bounds a file with a key, in bytes. CFSSL's documentation has keys of 16.
const maxKeyFile = 4 << 10

// Config says which CFSSL signs, and how it knows who asks. Address is required; zero
// values of the others are the defaults.
type Config struct {
	// Address is the URL of the server, without /api/v1/cfssl: https, or http on a
	// loopback address, as a proxy beside this program has it.
	Address string
	// Profile is the name of the signing profile; "" is the server's default.
	// WARNING: "cfssl serve" takes a name that it does not know for its default.
	Profile string
	// Label is the name of the CA, where the server is a multirootca; "" is its
	// default.
	Label string
	// AuthKey is the profile's auth_key, in hexadecimal; with "", and no AuthKeyFile,
	// requests are not authenticated.
	AuthKey string
	// AuthKeyFile is a file that holds AuthKey, which only its owner may read. It is
	// read for each request, so that the key can be replaced.
	AuthKeyFile string
	// Roots are those of the server's own certificate; nil are the system's.
	Roots *x509.CertPool
	// ServerName is the name in the server's certificate; "" is the address's.
	ServerName string
	// CertFile and KeyFile hold the client certificate that the server wants
	// (-mutual-tls-ca), and its key, in PEM; "" is none. They are read for each
	// connection.
	CertFile, KeyFile string
	// Intermediates are the CA certificates between the server's and the root, where
	// there are any: the server hands out its own alone.
	Intermediates []*x509.Certificate
	// Timeout bounds one request, its answer included; 0 is DefaultTimeout.
	Timeout time.Duration
}

// complete checks the configuration and fills in defaults.
func (c Config) complete() (Config, error) {
	if err := checkAddress(c.Address); err != nil {
		return c, err
	}
	c.Address = strings.TrimRight(c.Address, "/")
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	switch {
	case c.Timeout < 0:
		return c, fmt.Errorf("the timeout is %s; it cannot be negative", c.Timeout)
	case c.AuthKey != "" && c.AuthKeyFile != "":
		return c, errors.New("a key and a file of one are given: leave one of them out")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return c, errors.New("a client certificate needs its file and that of its key: give both or neither")
	}
	if c.AuthKey != "" {
		if _, err := ParseKey(c.AuthKey); err != nil {
			return c, err
		}
	}
	return c, nil
}

// checkAddress refuses an address at which answers could be changed on the way.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return errors.New("no address is given: the URL of the server, such as https://ca.example.com:8888")
	case err != nil:
		return errors.New("the address of CFSSL is not a URL")
	case strings.Contains(address, "@") || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the address of CFSSL has a user, a query or a fragment, which mean nothing there")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("the address %q is not a URL of CFSSL, such as https://ca.example.com:8888", address)
	case !cahttp.Protected(u):
		return fmt.Errorf("the address %s is not https: what comes from there can be changed on the way; give CFSSL a certificate (-tls-cert, -tls-key)", address)
	}
	return nil
}

// ParseKey reads the key of a profile. Its errors say nothing of the key.
func ParseKey(s string) ([]byte, error) {
	if scheme, _, ok := strings.Cut(s, ":"); ok && (scheme == "env" || scheme == "file") {
		return nil, fmt.Errorf("the key names a place (%s:), which CFSSL looks at on its own host: give the key that is there", scheme)
	}
	key, err := hex.DecodeString(s)
	switch {
	case err != nil:
		return nil, errors.New("the key is not in hexadecimal, as CFSSL's auth_keys are")
	case len(key) == 0:
		return nil, errors.New("the key is empty")
	}
	return key, nil
}

// key returns the key that requests are signed with; nil if there is none.
func (c Config) key() ([]byte, error) {
	switch {
	case c.AuthKey != "":
		return ParseKey(c.AuthKey)
	case c.AuthKeyFile == "":
		return nil, nil
	}
	text, err := durable.ReadPrivate(c.AuthKeyFile, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("the key of CFSSL: %w", err)
	}
	key, err := ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.AuthKeyFile, err)
	}
	return key, nil
}
