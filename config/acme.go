// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/solver"
)

// ACME are the settings of an issuer of type "acme": a CA that speaks RFC 8555.
type ACME struct {
	// Directory is the name of a preset (see Directories) or an https URL. It is
	// required.
	Directory string `yaml:"directory"`
	// TermsAgreed says that the CA's terms of service are agreed to. It must be
	// true where the CA has any.
	TermsAgreed bool `yaml:"terms_agreed,omitempty"`
	// Contact are mail addresses that the CA may write to, without mailto:.
	Contact []string `yaml:"contact,omitempty"`
	// Roots are PEM certificates by which the CA's web server is known; "" is the
	// system's.
	Roots string `yaml:"roots,omitempty"`
	// Profile is the kind of certificate to ask for, such as "tlsserver" or
	// "shortlived"; "" is the CA's default.
	Profile string `yaml:"profile,omitempty"`
	// PreferredChain is the common name of the issuer at the chain's end, where the
	// CA offers several; "" is the CA's own preference.
	PreferredChain string `yaml:"preferred_chain,omitempty"`
	// Challenge is how control of names is proven where a certificate does not say:
	// "http-01", "tls-alpn-01" or "dns-01"; "" is http-01, and dns-01 for wildcards.
	Challenge string `yaml:"challenge,omitempty"`
	// EAB binds the account to one that the CA knows already (RFC 8555 section
	// 7.3.4); nil if it asks for none.
	EAB *EAB `yaml:"eab,omitempty"`
	// AccountKey is the PEM private key of an account that was made elsewhere; ""
	// makes one.
	AccountKey string `yaml:"account_key,omitempty"`
	// SkipCAA leaves the look at CAA records to the CA.
	SkipCAA bool `yaml:"skip_caa,omitempty"`
	// Limits are what the CA lets be asked of it; nil is those of the preset, or
	// none.
	Limits *Limits `yaml:"limits,omitempty"`
}

// EAB is an external account binding.
type EAB struct {
	KeyID string `yaml:"key_id"`
	// HMACKey is base64url without padding.
	HMACKey string `yaml:"hmac_key"`
}

// Limits are a CA's rate limits, as far as a client can keep to them by itself.
type Limits struct {
	// Orders are new orders of the account.
	Orders Rate `yaml:"orders,omitempty"`
	// Domain are certificates for one registered domain, and Set those for exactly
	// the same names.
	Domain Rate `yaml:"domain,omitempty"`
	Set    Rate `yaml:"set,omitempty"`
	// Failures are failed validations of one name.
	Failures Rate `yaml:"failures,omitempty"`
}

func (m *mapping) acme() *ACME {
	m.only("type", "directory", "terms_agreed", "contact", "roots", "profile", "preferred_chain", "challenge",
		"eab", "account_key", "skip_caa", "limits")
	a := new(ACME)
	parse(m, "directory", &a.Directory, directory)
	if _, given := m.values["directory"]; !given {
		m.wrong("directory", "it is missing: one of %s, or the https URL of the CA's directory", strings.Join(Directories(), ", "))
	}
	m.boolean("terms_agreed", &a.TermsAgreed)
	a.Contact, _ = texts(m, "contact", contact)
	parse(m, "roots", &a.Roots, roots)
	m.word("profile", &a.Profile)
	m.word("preferred_chain", &a.PreferredChain)
	parse(m, "challenge", &a.Challenge, challenge)
	if v := m.values["eab"]; v != nil {
		one := m.read(m.of("eab"), v)
		a.EAB = one.externalAccount()
	}
	parse(m, "account_key", &a.AccountKey, accountKey)
	m.boolean("skip_caa", &a.SkipCAA)
	if v := m.values["limits"]; v != nil {
		one := m.read(m.of("limits"), v)
		a.Limits = one.limits()
	}
	m.preset(a)
	return a
}

// challenge reads one of solver.Types.
func challenge(s string) (string, error) {
	if !slices.Contains(solver.Types(), s) {
		return "", fmt.Errorf("%.40q is not a type of challenge; known are %s", s, strings.Join(solver.Types(), ", "))
	}
	return s, nil
}
