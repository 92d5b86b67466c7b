// SPDX-License-Identifier: Apache-2.0

package issuers

import (
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acmpca"
)

func openAWSPCA(c config.Issuer) (issuer.Issuer, error) {
	a := c.AWSPCA
	i, err := acmpca.New(acmpca.Config{
		ARN: a.ARN, Template: a.Template, Lifetime: time.Duration(a.Lifetime), Profile: a.Profile, Endpoint: a.Endpoint,
	})
	if err != nil {
		return nil, err // not a nil *acmpca.Issuer
	}
	return i, nil
}
