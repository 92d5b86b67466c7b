// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// explainTime reports whether a certificate is outside its validity, and what to do.
// what is what it is in the connection, with its article, as in "the leaf".
func explainTime(what string, cert *x509.Certificate, now time.Time) (Finding, bool) {
	switch {
	case now.After(cert.NotAfter):
		return found(Expired, Error,
			"Have it issued anew and see that it is taken over; if it was, the process still has the old one: reload or restart it.",
			"%s %s ended at %s, %s ago.", upper(what), title(cert), stamp(cert.NotAfter), span(now.Sub(cert.NotAfter))), true
	case now.Before(cert.NotBefore):
		return found(NotYetValid, Error,
			"Set the clock of this machine if it is slow; else wait, or serve the certificate of before until then.",
			"%s %s begins at %s, in %s; the clock here shows %s.", upper(what), title(cert), stamp(cert.NotBefore), span(cert.NotBefore.Sub(now)), stamp(now)), true
	}
	return Finding{}, false
}

// explainUsage reports whether a certificate may not be used so (RFC 5280, section
// 4.2.1.12: none means any).
func explainUsage(cert *x509.Certificate, usage x509.ExtKeyUsage, what string, s Severity) (Finding, bool) {
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 || slices.Contains(cert.ExtKeyUsage, usage) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return Finding{}, false
	}
	name := usageNames[usage]
	return found(MissingEKU, s,
		"Have it issued with the extended key usage "+name+".",
		"%s %s may be used for %s only, and not for %s.", upper(what), title(cert), usageText(cert), name), true
}

var usageNames = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageAny:             "any",
	x509.ExtKeyUsageServerAuth:      "serverAuth",
	x509.ExtKeyUsageClientAuth:      "clientAuth",
	x509.ExtKeyUsageCodeSigning:     "codeSigning",
	x509.ExtKeyUsageEmailProtection: "emailProtection",
	x509.ExtKeyUsageTimeStamping:    "timeStamping",
	x509.ExtKeyUsageOCSPSigning:     "OCSPSigning",
}

// usagesOf names the extended key usages as RFC 5280 does, else by object identifier.
func usagesOf(cert *x509.Certificate) []string {
	const most = 20
	var list []string
	for _, u := range cert.ExtKeyUsage {
		name, ok := usageNames[u]
		if !ok {
			name = u.OID().String()
		}
		list = append(list, name)
	}
	for _, oid := range cert.UnknownExtKeyUsage {
		list = append(list, shown(oid.String()))
	}
	return list[:min(len(list), most)]
}

func usageText(cert *x509.Certificate) string {
	if list := usagesOf(cert); len(list) > 0 {
		return strings.Join(list, ", ")
	}
	return "any"
}

// explainName reports whether a certificate does not cover a name, and why.
func explainName(cert *x509.Certificate, name string) (Finding, bool) {
	if cert.VerifyHostname(name) == nil {
		return Finding{}, false
	}
	detail, remedy := "", ""
	names := namesOf(cert, countNames(cert))
	switch wildcard := wildcardNear(cert, name); {
	case countNames(cert) == 0 && strings.EqualFold(cert.Subject.CommonName, name):
		detail = "has " + quote(name) + " as its common name only, which clients do not look at (RFC 9525, section 6.3)"
		remedy = "Have it issued with the name as a subject alternative name."
	case countNames(cert) == 0:
		detail = "has no names at all (subject alternative names), so that it does not cover " + quote(name)
		remedy = "Have it issued with the name as a subject alternative name."
	case isIP(name) && len(cert.IPAddresses) == 0:
		detail = "has no IP addresses, so that it does not cover " + quote(name) + "; it is for " + some(names)
		remedy = "Connect by one of these names (keyturn doctor --servername NAME), or have it issued with the address too."
	case wildcard != "":
		detail = "is for " + quote(wildcard) + ", and a wildcard stands for exactly one label (RFC 9525, section 6.3), so that it does not cover " + quote(name)
		remedy = "Have it issued with " + quote(name) + " itself, or a wildcard of that depth."
	default:
		detail = "does not cover " + quote(name) + "; it is for " + some(names)
		remedy = "Connect by one of these names, or give the server a certificate for " + quote(name) + ". If it has one, it did not choose it by the server name (SNI): look at the name that its configuration has for it."
	}
	return found(NameMismatch, Error, remedy, "The certificate %s.", detail), true
}

// wildcardNear returns a wildcard that the name would match if it stood for more labels,
// or for none.
func wildcardNear(cert *x509.Certificate, name string) string {
	name = strings.ToLower(name)
	for _, san := range cert.DNSNames {
		if base, ok := strings.CutPrefix(strings.ToLower(san), "*."); ok && base != "" && (name == base || strings.HasSuffix(name, "."+base)) {
			return san
		}
	}
	return ""
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
