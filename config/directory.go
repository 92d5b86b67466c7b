// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// directories are the presets of ACME.Directory. All of them have terms of
// service; eab are those that take no account without an external binding.
var directories = []struct {
	name string
	eab  bool
}{
	{"letsencrypt", false},
	{"letsencrypt-staging", false},
	{"zerossl", true},
	{"google", true},
}

// Directories lists the presets of ACME.Directory: public CAs whose URLs and
// limits need not be written down.
func Directories() []string {
	var names []string
	for _, d := range directories {
		names = append(names, d.name)
	}
	return names
}

// directory reads the name of a preset or an https URL.
func directory(s string) (string, error) {
	for _, d := range directories {
		if s == d.name {
			return s, nil
		}
	}
	known := strings.Join(Directories(), ", ")
	if !strings.Contains(s, ":") {
		return "", fmt.Errorf("%.40q is not a CA that is known by name; known are %s; any other is the https URL of its directory", s, known)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Fragment != "":
		return "", fmt.Errorf("it is not the https URL of a directory, nor one of %s", known)
	case u.Scheme != "https":
		return "", errors.New("the URL does not start with https://: who is between here and the CA could answer in its place")
	case u.User != nil:
		return "", errors.New("the URL holds a user or a password: no directory asks for one, and an eab is how a CA knows its account")
	}
	return s, nil
}

// preset checks what the CAs that are known by name ask of an account.
func (m *mapping) preset(a *ACME) {
	for _, d := range directories {
		if a.Directory != d.name {
			continue
		}
		if v := m.values["terms_agreed"]; !a.TermsAgreed && (v == nil || v.Tag == "!!bool") {
			m.wrong("terms_agreed", "%s has terms of service: read them, and write terms_agreed: true to agree", d.name)
		}
		if _, given := m.values["eab"]; d.eab && !given && m.values["account_key"] == nil {
			m.wrong("eab", "%s takes an account only with an external binding: write the key_id and the hmac_key that it gave you", d.name)
		}
	}
}
