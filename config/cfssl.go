// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/hex"
	"errors"
)

// CFSSL are the settings of an issuer of type "cfssl": a profile of a CFSSL.
type CFSSL struct {
	Address string `yaml:"address"`           // https URL, or http on a loopback address; it is required
	Profile string `yaml:"profile,omitempty"` // empty: the server's default
	Label   string `yaml:"label,omitempty"`   // the CA of a multirootca; empty: its default
	// AuthKey is the key of the profile in hexadecimal, and AuthKeyFile a file on each
	// manager's host that has it, read anew for each request. Without either, requests
	// are not authenticated.
	AuthKey     string `yaml:"auth_key,omitempty"`
	AuthKeyFile string `yaml:"auth_key_file,omitempty"`
	Roots       string `yaml:"roots,omitempty"`       // PEM certificates by which the server is known; empty: the system's
	ServerName  string `yaml:"server_name,omitempty"` // the name in its certificate; empty: the address's
	// CertFile and KeyFile are those of a client certificate on each manager's host,
	// read anew for each connection.
	CertFile string `yaml:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty"`
	// Intermediates are PEM certificates between the CA and the root.
	Intermediates string `yaml:"intermediates,omitempty"`
}

func (m *mapping) cfssl() *CFSSL {
	m.only("type", "address", "profile", "label", "auth_key", "auth_key_file", "roots", "server_name",
		"cert_file", "key_file", "intermediates")
	c := new(CFSSL)
	parse(m, "address", &c.Address, serverURL("a CFSSL", "https://ca.example.com:8888"))
	if _, given := m.values["address"]; !given {
		m.wrong("address", "it is missing: the URL of the server, such as https://ca.example.com:8888")
	}
	m.word("profile", &c.Profile)
	m.word("label", &c.Label)
	parse(m, "auth_key", &c.AuthKey, authKey)
	m.word("auth_key_file", &c.AuthKeyFile)
	if c.AuthKey != "" && c.AuthKeyFile != "" {
		m.wrong("auth_key_file", "auth_key and auth_key_file are given: leave one of them out")
	}
	parse(m, "roots", &c.Roots, roots)
	m.word("server_name", &c.ServerName)
	m.word("cert_file", &c.CertFile)
	m.word("key_file", &c.KeyFile)
	if (c.CertFile == "") != (c.KeyFile == "") {
		m.wrong("cert_file", "cert_file and key_file belong together")
	}
	parse(m, "intermediates", &c.Intermediates, roots)
	return c
}

// authKey reads a key of CFSSL's. A number, as one without letters reads, is one, too.
func authKey(s string) (string, error) {
	if key, err := hex.DecodeString(s); err != nil || len(key) == 0 {
		return "", errors.New("it is not a key in hexadecimal, as CFSSL's auth_keys are")
	}
	return s, nil
}
