// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// Vault are the settings of an issuer of type "vault": a role of the PKI secrets
// engine of a Vault. What is empty is taken from the VAULT_… variables of each
// manager.
type Vault struct {
	Address    string `yaml:"address,omitempty"`     // https URL, or http on a loopback address
	Namespace  string `yaml:"namespace,omitempty"`   // an Enterprise namespace
	Mount      string `yaml:"mount,omitempty"`       // path of the engine; empty: pki
	Role       string `yaml:"role"`                  // it is required
	Roots      string `yaml:"roots,omitempty"`       // PEM certificates by which the server is known
	ServerName string `yaml:"server_name,omitempty"` // the name in its certificate; empty: the address's
	// Auth is how managers log in; nil is the token in VAULT_TOKEN.
	Auth *VaultAuth `yaml:"auth,omitempty"`
}

// VaultAuth is a way to log in at a Vault. Files are those of each manager's host,
// and are read anew for each login.
type VaultAuth struct {
	// Method is one of the keys of VaultMethods.
	Method string `yaml:"method"`
	// Mount is the path of the method below auth/; empty is the method's name.
	Mount string `yaml:"mount,omitempty"`
	// Role is the method's, not the engine's.
	Role         string `yaml:"role,omitempty"`
	RoleID       string `yaml:"role_id,omitempty"`
	SecretID     string `yaml:"secret_id,omitempty"`
	SecretIDFile string `yaml:"secret_id_file,omitempty"`
	Token        string `yaml:"token,omitempty"`
	TokenFile    string `yaml:"token_file,omitempty"`
	CertFile     string `yaml:"cert_file,omitempty"`
	KeyFile      string `yaml:"key_file,omitempty"`
}

// vaultMethods are the ways to log in, and the keys that each takes besides method.
var vaultMethods = map[string][]string{
	"token":      {"token", "token_file"},
	"approle":    {"mount", "role_id", "secret_id", "secret_id_file"},
	"kubernetes": {"mount", "role", "token_file"},
	"jwt":        {"mount", "role", "token", "token_file"},
	"cert":       {"mount", "role", "cert_file", "key_file"},
}

// VaultMethods lists the ways to log in at a Vault.
func VaultMethods() []string { return slices.Sorted(maps.Keys(vaultMethods)) }

func (m *mapping) vault() *Vault {
	m.only("type", "address", "namespace", "mount", "role", "roots", "server_name", "auth")
	v := new(Vault)
	parse(m, "address", &v.Address, serverURL("a Vault", "https://vault.example.com:8200"))
	m.word("namespace", &v.Namespace)
	m.word("mount", &v.Mount)
	m.word("role", &v.Role)
	if _, given := m.values["role"]; !given {
		m.wrong("role", "it is missing: the role of the PKI secrets engine that signs")
	}
	if strings.Contains(v.Role, "/") {
		m.wrong("role", "it has a slash in it: the path of the engine belongs under mount, and the role's name alone here")
	}
	parse(m, "roots", &v.Roots, roots)
	m.word("server_name", &v.ServerName)
	if value := m.values["auth"]; value != nil {
		one := m.read(m.of("auth"), value)
		v.Auth = one.vaultAuth()
	}
	return v
}

func (m *mapping) vaultAuth() *VaultAuth {
	a := new(VaultAuth)
	m.str("method", &a.Method)
	keys, ok := vaultMethods[a.Method]
	if !ok {
		m.wrong("method", "%.40q is not a way to log in; known are %s", a.Method, strings.Join(VaultMethods(), ", "))
		return a
	}
	m.only(append([]string{"method"}, keys...)...)
	for key, field := range map[string]*string{
		"mount": &a.Mount, "role": &a.Role, "role_id": &a.RoleID, "secret_id": &a.SecretID, "secret_id_file": &a.SecretIDFile,
		"token": &a.Token, "token_file": &a.TokenFile, "cert_file": &a.CertFile, "key_file": &a.KeyFile,
	} {
		if slices.Contains(keys, key) {
			m.word(key, field)
		}
	}
	if err := a.check(); err != nil {
		m.wrong("method", "%v", err)
	}
	return a
}

// check looks at what the keys of a method say together.
func (a *VaultAuth) check() error {
	switch {
	case a.Method == "approle" && a.RoleID == "":
		return errors.New("approle needs role_id, and most roles secret_id or secret_id_file")
	case a.SecretID != "" && a.SecretIDFile != "":
		return errors.New("secret_id and secret_id_file are given: leave one of them out")
	case a.Token != "" && a.TokenFile != "":
		return errors.New("token and token_file are given: leave one of them out")
	case a.Method == "kubernetes" && a.Role == "":
		return errors.New("kubernetes needs role")
	case a.Method == "jwt" && a.Token == "" && a.TokenFile == "":
		return errors.New("jwt needs token_file or token")
	case (a.CertFile == "") != (a.KeyFile == ""):
		return errors.New("cert_file and key_file belong together")
	}
	return nil
}
