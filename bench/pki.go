// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// An authority is an intermediate CA. Everything that is measured has its
// certificates, so that all contenders serve the same.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{Subject: pkix.Name{Organization: []string{"Keyturn benchmarks"}, CommonName: "Root X1"}}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Organization: []string{"Keyturn benchmarks"}, CommonName: "E1"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(3, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          []byte("the key id of E1 has"),
		AuthorityKeyId:        []byte("20 bytes, as the has"),
	}, root, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key}, nil
}

// issue returns a certificate for names, with the intermediate, a P-256 key of its own,
// and Leaf set.
//
// It has what a leaf of a public CA has, and about its size: one policy, where to find
// the issuer and its revocation list, and room for the two timestamps of Certificate
// Transparency. It names no OCSP server, as those of Let's Encrypt do no more: CertMagic
// would ask it.
func (a *authority) issue(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial := make([]byte, 16)
	timestamps := make([]byte, 242)
	rand.Read(serial)
	rand.Read(timestamps)
	serial[0] &= 0x7f
	list, err := asn1.Marshal(timestamps)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 0, 90),
		DNSNames:              names,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          serial,
		PolicyIdentifiers:     []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		IssuingCertificateURL: []string{"http://e1.example.net/"},
		CRLDistributionPoints: []string{"http://e1.example.net/100.crl"},
		// RFC 6962, section 3.3. Nobody reads what is in it.
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: list}},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// issueAll issues a certificate for each list of names, on all cores.
func (b *bench) issueAll(names [][]string) ([]tls.Certificate, error) {
	defer b.stage("issue %s certificates", thousands(len(names)))()
	certs := make([]tls.Certificate, len(names))
	return certs, inParallel(len(names), func(i int) (err error) {
		certs[i], err = b.ca.issue(names[i]...)
		return err
	})
}

// inParallel calls do with 0 to n-1, on all cores, and returns the first error.
func inParallel(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// pemOf returns the chain and the key of cert as files hold them.
func pemOf(cert tls.Certificate) (chain, key []byte, err error) {
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
