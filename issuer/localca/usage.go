// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Object identifiers of the extended key usage and of what can be in it (RFC
// 5280 section 4.2.1.12).
var (
	extKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	serverAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	clientAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

// takeUsages reads what a request says that the certificate is for, if anything.
func takeUsages(csr *x509.CertificateRequest, template *x509.Certificate) error {
	for _, e := range csr.Extensions {
		if !e.Id.Equal(extKeyUsage) {
			continue
		}
		var ids []asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(e.Value, &ids); err != nil || len(rest) > 0 || len(ids) == 0 {
			return errors.New("the extended key usages of the request do not parse")
		}
		for _, id := range ids {
			switch {
			case id.Equal(serverAuth):
				template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
			case id.Equal(clientAuth):
				template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
			default:
				return fmt.Errorf("the extended key usage %.80s is asked for: this CA signs for TLS servers (%s) and clients (%s)", id, serverAuth, clientAuth)
			}
		}
	}
	return nil
}
