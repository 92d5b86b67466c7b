// SPDX-License-Identifier: Apache-2.0

// Package motoserver runs Moto for tests: an emulator of AWS's services, written by
// others, in Python. It is not AWS, and it is laxer: its Private CA looks at no
// signature, has every certificate last a year, and gives none late.
//
//	s := motoserver.Start(t)
//	arn, root := s.PrivateCA(t)
//
// The program moto_server has to be installed: pip install 'moto[server]'.
package motoserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/keyturn/keyturn/internal/testprogram"
)

const (
	// Region is where its resources are made.
	Region = "eu-west-1"

	host     = "127.0.0.1"
	program  = "moto_server"
	hint     = "moto_server is not installed; run: pip install 'moto[server]'"
	patience = time.Minute
)

// A Server is a running Moto. It keeps nothing after the test.
type Server struct {
	// URL is the endpoint of all services.
	URL string

	cmd   *exec.Cmd
	out   bytes.Buffer // read when it has ended
	ended <-chan struct{}
}

// Program returns the path of the program, which has to be installed.
func Program(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		testprogram.Missing(tb, hint, err)
	}
	return path
}

// Start returns a server that answers, and ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	path := Program(tb)
	port, err := testprogram.FreePort(host)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{URL: "http://" + net.JoinHostPort(host, strconv.Itoa(port))}
	s.cmd = exec.Command(path, "-H", host, "-p", strconv.Itoa(port))
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if s.ended, err = testprogram.Start(s.cmd); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended already, or ends now
		<-s.ended
		if tb.Failed() {
			tb.Logf("Moto said:\n%s", s.out.Bytes())
		}
	})
	if err := s.ready(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// ready returns when the server listens.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.URL[len("http://"):])
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("the server ended: %s", s.out.Bytes())
		case <-ctx.Done():
			return fmt.Errorf("the server does not listen: %w", err)
		}
	}
}

// PrivateCA makes an active CA of AWS Private CA, signed by a root outside.
func (s *Server) PrivateCA(tb testing.TB) (arn string, root *x509.Certificate) {
	tb.Helper()
	arn, root, err := s.privateCA(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return arn, root
}

func (s *Server) privateCA(ctx context.Context) (arn string, root *x509.Certificate, err error) {
	client := s.Client()
	made, err := client.CreateCertificateAuthority(ctx, &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: types.CertificateAuthorityTypeSubordinate,
		CertificateAuthorityConfiguration: &types.CertificateAuthorityConfiguration{
			KeyAlgorithm: types.KeyAlgorithmRsa2048, SigningAlgorithm: types.SigningAlgorithmSha256withrsa,
			Subject: &types.ASN1Subject{CommonName: aws.String("Moto test CA")},
		},
	})
	if err != nil {
		return "", nil, err
	}
	asked, err := client.GetCertificateAuthorityCsr(ctx, &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: made.CertificateAuthorityArn})
	if err != nil {
		return "", nil, err
	}
	root, ca, err := sign([]byte(aws.ToString(asked.Csr)))
	if err != nil {
		return "", nil, err
	}
	_, err = client.ImportCertificateAuthorityCertificate(ctx, &acmpca.ImportCertificateAuthorityCertificateInput{
		CertificateAuthorityArn: made.CertificateAuthorityArn,
		Certificate:             encode(ca),
		CertificateChain:        encode(root.Raw),
	})
	return aws.ToString(made.CertificateAuthorityArn), root, err
}

// Client is one of AWS Private CA.
func (s *Server) Client() *acmpca.Client {
	return acmpca.New(acmpca.Options{
		Region: Region, BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	})
}

// sign makes a root, and has it sign the request of a CA.
func sign(request []byte) (root *x509.Certificate, ca []byte, err error) {
	block, _ := pem.Decode(request)
	if block == nil {
		return nil, nil, errors.New("the request of the CA is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Moto test root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		return nil, nil, err
	}
	below := *template
	below.SerialNumber, below.RawSubject = big.NewInt(2), csr.RawSubject
	if below.SubjectKeyId, err = keyID(csr.RawSubjectPublicKeyInfo); err != nil {
		return nil, nil, err
	}
	ca, err = x509.CreateCertificate(rand.Reader, &below, root, csr.PublicKey, key)
	return root, ca, err
}

// keyID names a key as Moto does (RFC 5280 section 4.2.1.2, the first method).
func keyID(info []byte) ([]byte, error) {
	var parts struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(info, &parts); err != nil {
		return nil, err
	}
	sum := sha1.Sum(parts.Key.RightAlign())
	return sum[:], nil
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
