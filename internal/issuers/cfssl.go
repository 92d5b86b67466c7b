// SPDX-License-Identifier: Apache-2.0

package issuers

import (
	"crypto/x509"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/certchain"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/cfssl"
)

func openCFSSL(c config.Issuer) (issuer.Issuer, error) {
	settings, err := cfsslConfig(c.CFSSL)
	if err != nil {
		return nil, err
	}
	i, err := cfssl.New(settings)
	if err != nil {
		return nil, err // not a nil *cfssl.Issuer
	}
	return i, nil
}

func cfsslConfig(c *config.CFSSL) (cfssl.Config, error) {
	intermediates, err := certchain.Parse(c.Intermediates)
	s := cfssl.Config{
		Address: c.Address, Profile: c.Profile, Label: c.Label, AuthKey: c.AuthKey, AuthKeyFile: c.AuthKeyFile,
		ServerName: c.ServerName, CertFile: c.CertFile, KeyFile: c.KeyFile, Intermediates: intermediates,
	}
	if c.Roots != "" {
		s.Roots = x509.NewCertPool()
		s.Roots.AppendCertsFromPEM([]byte(c.Roots)) // config has read them
	}
	return s, err
}
