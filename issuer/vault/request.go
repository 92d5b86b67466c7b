// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxCommonName is how many characters a common name has at most (RFC 5280 appendix
// A.1, ub-common-name).
const maxCommonName = 64

// subjectAltName is the extension's object identifier (RFC 5280 section 4.2.1.6).
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Tags of a GeneralName (RFC 5280 section 4.2.1.6).
const (
	tagOther = 0
	tagMail  = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// parameters are those of the endpoint sign/ROLE, for a request that issuer.CheckRequest
// lets pass.
func parameters(csr *x509.CertificateRequest, lifetime time.Duration) (map[string]any, error) {
	p, err := names(csr)
	if err != nil {
		return nil, err
	}
	p["common_name"] = commonName(csr)
	p["csr"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}))
	if lifetime > 0 { // in whole seconds, of which there is at least one
		p["ttl"] = strconv.FormatInt(int64((lifetime+time.Second-1)/time.Second), 10) + "s"
	}
	return p, nil
}

// names are the request's subject alternative names, for a role that does not take
// them from the request itself (use_csr_sans=false).
func names(csr *x509.CertificateRequest) (map[string]any, error) {
	var ips, uris []string
	for _, ip := range csr.IPAddresses {
		ips = append(ips, ip.String())
	}
	for _, uri := range csr.URIs {
		uris = append(uris, uri.String())
	}
	others, err := otherNames(csr)
	if err != nil {
		return nil, err
	}
	alt := slices.Concat(csr.DNSNames, csr.EmailAddresses)
	for _, list := range [][]string{alt, uris, others} {
		for _, name := range list {
			if strings.ContainsAny(name, ",") || strings.TrimSpace(name) != name {
				return nil, fmt.Errorf("the name %.100q has a comma or space in it, which Vault takes for the end of a name", name)
			}
		}
	}
	return map[string]any{"alt_names": strings.Join(alt, ","), "ip_sans": ips, "uri_sans": uris, "other_sans": others}, nil
}

// commonName is the request's, or if it has none one of its names that fits; "" if none
// does.
func commonName(csr *x509.CertificateRequest) string {
	if cn := csr.Subject.CommonName; cn != "" {
		return cn
	}
	for _, name := range csr.DNSNames {
		if len(name) <= maxCommonName {
			return name
		}
	}
	return ""
}

// otherNames returns what Vault calls other_sans: OID;UTF8:TEXT. It refuses names of
// kinds that Vault does not know.
func otherNames(csr *x509.CertificateRequest) ([]string, error) {
	var others []string
	for _, e := range csr.Extensions {
		if !e.Id.Equal(subjectAltName) {
			continue
		}
		var all []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &all); err != nil {
			return nil, fmt.Errorf("the request's names do not parse: %w", err)
		}
		for _, raw := range all {
			switch raw.Tag {
			case tagMail, tagDNS, tagURI, tagIP:
			case tagOther:
				other, err := otherName(raw.Bytes)
				if err != nil {
					return nil, err
				}
				others = append(others, other)
			default:
				return nil, fmt.Errorf("the request has a GeneralName of type %d, which Vault does not sign", raw.Tag)
			}
		}
	}
	return others, nil
}

// otherName reads the content of an OtherName: an object identifier and a value
// under an explicit tag.
func otherName(content []byte) (string, error) {
	var id asn1.ObjectIdentifier
	var wrapped, value asn1.RawValue
	rest, err := asn1.Unmarshal(content, &id)
	if err == nil {
		rest, err = asn1.Unmarshal(rest, &wrapped)
	}
	if err == nil && len(rest) == 0 {
		rest, err = asn1.Unmarshal(wrapped.Bytes, &value)
	}
	switch {
	case err != nil || len(rest) > 0 || wrapped.Class != asn1.ClassContextSpecific || wrapped.Tag != 0 || !wrapped.IsCompound:
		return "", errors.New("the request has an otherName that does not parse")
	case value.Class != asn1.ClassUniversal || value.Tag != asn1.TagUTF8String || value.IsCompound || !utf8.Valid(value.Bytes):
		return "", fmt.Errorf("the request has an otherName %s that is not a UTF8String: Vault signs no other", id)
	}
	return id.String() + ";UTF8:" + string(value.Bytes), nil
}
