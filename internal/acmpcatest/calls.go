// SPDX-License-Identifier: Apache-2.0

package acmpcatest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"
)

// backdate is how long before it is signed a certificate begins.
const backdate = time.Hour

// The algorithms that AWS knows, as far as Go does.
var (
	curves = map[string]elliptic.Curve{
		"EC_prime256v1": elliptic.P256(), "EC_secp384r1": elliptic.P384(), "EC_secp521r1": elliptic.P521(),
	}
	bits       = map[string]int{"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}
	algorithms = map[string]x509.SignatureAlgorithm{
		"SHA256WITHECDSA": x509.ECDSAWithSHA256, "SHA384WITHECDSA": x509.ECDSAWithSHA384, "SHA512WITHECDSA": x509.ECDSAWithSHA512,
		"SHA256WITHRSA": x509.SHA256WithRSA, "SHA384WITHRSA": x509.SHA384WithRSA, "SHA512WITHRSA": x509.SHA512WithRSA,
	}
)

// templates are what certificates are for, by the template's name.
var templates = map[string][]x509.ExtKeyUsage{
	"EndEntityCertificate/V1":           {x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	"EndEntityServerAuthCertificate/V1": {x509.ExtKeyUsageServerAuth},
	"EndEntityClientAuthCertificate/V1": {x509.ExtKeyUsageClientAuth},
}

// makeCA makes the CA, and the root that has signed it.
func (s *Server) makeCA() error {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if s.key, err = newKey(s.options.KeyAlgorithm); err != nil {
		return err
	}
	template := func(name string, serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().AddDate(1, 0, 0),
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	root := template("AWS Private CA stand-in root", 1)
	if s.Root, err = sign(root, root, rootKey.Public(), rootKey); err != nil {
		return err
	}
	s.cert, err = sign(template("AWS Private CA stand-in", 2), s.Root, s.key.Public(), rootKey)
	return err
}

func newKey(algorithm string) (crypto.Signer, error) {
	if curve, ok := curves[algorithm]; ok {
		return ecdsa.GenerateKey(curve, rand.Reader)
	}
	if n, ok := bits[algorithm]; ok {
		return rsa.GenerateKey(rand.Reader, n)
	}
	return nil, fmt.Errorf("no key algorithm %q", algorithm)
}

func sign(template, parent *x509.Certificate, public any, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (s *Server) describeLocked() any {
	mode := "GENERAL_PURPOSE"
	if s.options.ShortLived {
		mode = "SHORT_LIVED_CERTIFICATE"
	}
	return map[string]any{"CertificateAuthority": map[string]any{
		"Arn": s.ARN, "Status": s.status, "Type": "SUBORDINATE", "UsageMode": mode,
		"NotAfter": s.cert.NotAfter.Unix(), "NotBefore": s.cert.NotBefore.Unix(),
		"CertificateAuthorityConfiguration": map[string]any{
			"KeyAlgorithm": s.options.KeyAlgorithm, "SigningAlgorithm": s.options.SigningAlgorithm,
		},
	}}
}

func (s *Server) issueLocked(r request) (any, Fault) {
	if s.status != "ACTIVE" {
		return nil, refuse("InvalidStateException", "The certificate authority %s is not in a valid state: %s", s.ARN, s.status)
	}
	if len(r.IdempotencyToken) > 36 || strings.ContainsFunc(r.IdempotencyToken, func(c rune) bool { return c < ' ' || c > 'ÿ' }) {
		return nil, refuse("ValidationException", "IdempotencyToken failed to satisfy constraint: 1 to 36 characters")
	}
	if arn, ok := s.byToken[r.IdempotencyToken]; ok && r.IdempotencyToken != "" {
		return map[string]string{"CertificateArn": arn}, Fault{}
	}
	template, fault := s.templateOf(r, time.Now())
	if fault.Status != 0 {
		return nil, fault
	}
	csr, fault := parse(r.Csr)
	if fault.Status != 0 {
		return nil, fault
	}
	template.Subject, template.DNSNames, template.IPAddresses = csr.Subject, csr.DNSNames, csr.IPAddresses
	template.URIs, template.EmailAddresses = csr.URIs, csr.EmailAddresses
	cert, err := sign(template, s.cert, csr.PublicKey, s.key)
	if err != nil {
		return nil, Fault{http.StatusInternalServerError, "InternalFailure", err.Error()}
	}
	arn := fmt.Sprintf("%s/certificate/%x", s.ARN, cert.SerialNumber)
	s.issued[arn], s.byToken[r.IdempotencyToken] = &certificate{cert.Raw, s.busy}, arn
	return map[string]string{"CertificateArn": arn}, Fault{}
}

// templateOf is what a request says of the certificate, but for what the CSR does.
func (s *Server) templateOf(r request, now time.Time) (*x509.Certificate, Fault) {
	algorithm, known := algorithms[r.SigningAlgorithm]
	_, ecdsaKey := s.key.(*ecdsa.PrivateKey)
	usages, found := templates[strings.TrimPrefix(r.TemplateArn, "arn:aws:acm-pca:::template/")]
	end, err := endOf(r, now)
	switch {
	case !known || ecdsaKey != strings.HasSuffix(r.SigningAlgorithm, "ECDSA"):
		return nil, refuse("ValidationException", "The signing algorithm %q does not match the CA's key", r.SigningAlgorithm)
	case !found:
		return nil, refuse("InvalidArgsException", "Unsupported TemplateArn %s", r.TemplateArn)
	case err != nil:
		return nil, refuse("InvalidArgsException", "%v", err)
	case !end.After(now):
		return nil, refuse("InvalidArgsException", "The certificate would have ended already")
	case end.After(s.cert.NotAfter):
		return nil, refuse("ValidationException", "The certificate validity specified exceeds the certificate authority validity")
	case s.options.ShortLived && end.After(now.Add(7*24*time.Hour)):
		return nil, refuse("ValidationException", "A CA of the mode SHORT_LIVED_CERTIFICATE signs for seven days at most")
	}
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, Fault{http.StatusInternalServerError, "InternalFailure", err.Error()}
	}
	return &x509.Certificate{
		SerialNumber: number, NotBefore: now.Add(-backdate), NotAfter: end, SignatureAlgorithm: algorithm,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: usages, BasicConstraintsValid: true,
	}, Fault{}
}

func endOf(r request, now time.Time) (time.Time, error) {
	v := r.Validity
	if v.Value < 1 {
		return now, fmt.Errorf("the validity %d is below 1", v.Value)
	}
	switch v.Type {
	case "DAYS":
		return now.Add(time.Duration(v.Value) * 24 * time.Hour), nil
	case "ABSOLUTE":
		return time.Unix(v.Value, 0), nil
	}
	return now, fmt.Errorf("the validity type %q is not one of those that are known here", v.Type)
}

// parse reads a request, with a key that AWS documents.
func parse(text []byte) (*x509.CertificateRequest, Fault) {
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		return nil, refuse("MalformedCSRException", "The CSR is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, refuse("MalformedCSRException", "%v", err)
	}
	switch csr.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return csr, Fault{}
	}
	return nil, refuse("MalformedCSRException", "The key algorithm of the CSR is not supported")
}

func (s *Server) getLocked(r request) (any, Fault) {
	cert, ok := s.issued[r.CertificateArn]
	if !ok {
		return nil, refuse("ResourceNotFoundException", "Could not find Certificate %s", r.CertificateArn)
	}
	if cert.busy > 0 {
		cert.busy--
		return nil, refuse("RequestInProgressException", "The request to issue certificate %s is still in progress. Try again later.", r.CertificateArn)
	}
	return map[string]string{"Certificate": encode(cert.der), "CertificateChain": encode(s.cert.Raw, s.Root.Raw)}, Fault{}
}

// encode is PEM as AWS has it, without a line break at the end.
func encode(ders ...[]byte) string {
	var text strings.Builder
	for _, der := range ders {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return strings.TrimSpace(text.String())
}

var reasons = map[string]bool{
	"UNSPECIFIED": true, "KEY_COMPROMISE": true, "CERTIFICATE_AUTHORITY_COMPROMISE": true, "AFFILIATION_CHANGED": true,
	"SUPERSEDED": true, "CESSATION_OF_OPERATION": true, "PRIVILEGE_WITHDRAWN": true, "A_A_COMPROMISE": true,
}

func (s *Server) revokeLocked(r request) (any, Fault) {
	found := false
	for _, c := range s.issued {
		leaf, err := x509.ParseCertificate(c.der)
		found = found || err == nil && serial(leaf) == r.CertificateSerial
	}
	switch {
	case !reasons[r.RevocationReason]:
		return nil, refuse("ValidationException", "%q is not a reason", r.RevocationReason)
	case !found:
		return nil, refuse("ResourceNotFoundException", "Could not find a certificate with serial %s", r.CertificateSerial)
	case s.revoked[r.CertificateSerial] != "":
		return nil, refuse("RequestAlreadyProcessedException", "The certificate is revoked already")
	}
	s.revoked[r.CertificateSerial] = r.RevocationReason
	return struct{}{}, Fault{}
}

// serial is a serial number as the reference writes it.
func serial(leaf *x509.Certificate) string {
	return strings.ReplaceAll(fmt.Sprintf("% x", leaf.SerialNumber.Bytes()), " ", ":")
}
