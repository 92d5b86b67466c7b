// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/names"
	"github.com/keyturn/keyturn/issuer"
	ca "github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// A Config says which certificate is wanted, of whom, and where it is kept. Names and
// TermsAgreed are required. It is not changed, and can be used again.
type Config struct {
	// Names are what the certificate is for: DNS names and IP addresses, 100 at most.
	// International names are converted. Wildcards take a Solver for dns-01.
	Names []string

	// Directory is the CA: "letsencrypt", "letsencrypt-staging", "zerossl", "google",
	// or the https URL of its directory; "" is "letsencrypt".
	Directory string
	// TermsAgreed says that the CA's terms of service are agreed to.
	TermsAgreed bool
	// Contact are mail addresses that the CA may write to.
	Contact []string
	// EAB binds the account to one that the CA knows already: "zerossl" and "google"
	// ask for it. Nil is none.
	EAB *EAB
	// Roots are those of the CA's web server; nil are the system's.
	Roots *x509.CertPool

	// Profile is the kind of certificate, by the CA's name for it, such as
	// "shortlived"; "" is the CA's default.
	Profile string
	// PreferredChain is the common name of the issuer at the chain's end, where the CA
	// offers several; "" is the CA's own preference.
	PreferredChain string
	// Key is the kind of key; "" is ECDSA P-256. Each certificate has a new one.
	Key issuer.KeyType
	// RenewBefore is how long before its end a certificate is renewed at the latest. 0
	// leaves it to the CA, or to the rule where it does not say. One that is not shorter
	// than the lifetime is taken for 0.
	RenewBefore time.Duration

	// Challenge is how control of the names is proven: "tls-alpn-01", "http-01", or
	// "dns-01" with a Solver. "" is tls-alpn-01.
	Challenge string
	// Solver answers the challenges instead of this process; nil is the process.
	Solver solver.Solver
	// HTTPAddr is where Open listens for plain HTTP, HOST:PORT, such as ":80": challenges
	// of http-01 are answered there, and everything else is redirected to https. ""
	// does not listen: see Server.HTTPHandler.
	HTTPAddr string
	// Resolvers are the name servers that are asked for CAA records, HOST:PORT; none
	// are the system's.
	Resolvers []string
	// SkipCAA leaves the look at CAA records to the CA, where what forbids a certificate
	// is said less clearly, and counts as a failed validation.
	SkipCAA bool

	// Dir is where account and certificate are kept: see the package's documentation.
	// "" is DefaultDir.
	Dir string
	// Cache, if not nil, is where they are kept instead of Dir; CacheMiss is what its
	// Get returns where there is nothing.
	Cache     Cache
	CacheMiss error

	// Logger gets what happens, failures as errors; nil is slog.Default.
	Logger *slog.Logger
}

// An EAB is an external account binding (RFC 8555 section 7.3.4).
type EAB = ca.EAB

// complete checks the configuration and returns it in its normal form.
func (c Config) complete() (Config, error) {
	normal, err := names.NormalizeList(c.Names)
	if err != nil {
		return c, err
	}
	if len(normal) == 0 {
		return c, errors.New("no names are given")
	}
	c.Names = normal
	if c.Directory, err = directory(c.Directory); err != nil {
		return c, err
	}
	if !c.TermsAgreed {
		return c, errors.New("the CA's terms of service are not agreed to: read them, and set TermsAgreed")
	}
	if c.Key, err = issuer.ParseKeyType(string(c.Key)); err != nil {
		return c, err
	}
	if c.RenewBefore < 0 {
		return c, fmt.Errorf("RenewBefore is %v: it is a time before the end, and cannot be negative", c.RenewBefore)
	}
	c.Challenge = cmp.Or(c.Challenge, solver.TLSALPN01)
	if err := c.checkChallenge(); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

func (c Config) checkChallenge() error {
	if !slices.Contains(solver.Types(), c.Challenge) {
		return fmt.Errorf("%q is no challenge; known are %s", c.Challenge, strings.Join(solver.Types(), ", "))
	}
	if c.Challenge == solver.DNS01 && c.Solver == nil {
		return errors.New("dns-01 is answered by a name server: set Solver, such as one of the packages below solver/dns")
	}
	for _, name := range c.Names {
		if strings.HasPrefix(name, "*.") && c.Challenge != solver.DNS01 {
			return fmt.Errorf("a CA signs the wildcard %s for who controls its name servers: set Challenge to dns-01, and a Solver", name)
		}
		if isAddress(name) && c.Challenge == solver.DNS01 {
			return fmt.Errorf("the address %s has no name servers: control of it is proven by tls-alpn-01 or http-01", name)
		}
	}
	return nil
}

// directory is the URL of a CA's directory.
func directory(name string) (string, error) {
	name = cmp.Or(name, "letsencrypt")
	if preset, ok := ca.Presets[name]; ok {
		return preset.Directory, nil
	}
	if u, err := url.Parse(name); err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("the directory %q is no https URL; known by name are %s",
			name, strings.Join(slices.Sorted(maps.Keys(ca.Presets)), ", "))
	}
	return name, nil
}

// wants is what is asked of the CA.
func (c Config) wants() request {
	return request{
		Directory: c.Directory, Names: slices.Sorted(slices.Values(c.Names)),
		Key: c.Key, Profile: c.Profile, Chain: c.PreferredChain,
	}
}
