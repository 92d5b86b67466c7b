// SPDX-License-Identifier: Apache-2.0

package issuers

import (
	"crypto/x509"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/vault"
)

func openVault(c config.Issuer) (issuer.Issuer, error) {
	i, err := vault.New(vaultConfig(c.Vault))
	if err != nil {
		return nil, err // not a nil *vault.Issuer
	}
	return i, nil
}

func vaultConfig(c *config.Vault) vault.Config {
	v := vault.Config{
		Address: c.Address, Namespace: c.Namespace, Mount: c.Mount, Role: c.Role, ServerName: c.ServerName,
		Auth: vaultAuth(c.Auth),
	}
	if c.Roots != "" {
		v.Roots = x509.NewCertPool()
		v.Roots.AppendCertsFromPEM([]byte(c.Roots)) // config has read them
	}
	return v
}

// vaultAuth is one of config.VaultMethods.
func vaultAuth(a *config.VaultAuth) vault.Auth {
	if a == nil {
		return nil
	}
	switch a.Method {
	case "approle":
		return vault.AppRole{Mount: a.Mount, RoleID: a.RoleID, SecretID: a.SecretID, SecretIDFile: a.SecretIDFile}
	case "kubernetes":
		return vault.Kubernetes{Mount: a.Mount, Role: a.Role, TokenFile: a.TokenFile}
	case "jwt":
		return vault.JWT{Mount: a.Mount, Role: a.Role, Value: a.Token, File: a.TokenFile}
	case "cert":
		return vault.Certificate{Mount: a.Mount, Role: a.Role, CertFile: a.CertFile, KeyFile: a.KeyFile}
	}
	return vault.Token{Value: a.Token, File: a.TokenFile}
}
