// SPDX-License-Identifier: Apache-2.0

package cfsslserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
)

// A Profile is a signing profile of CFSSL's.
type Profile struct {
	// Key is what requests have to be signed with, in hexadecimal; "" is none.
	Key string
	// Expiry is the lifetime; 0 is a day.
	Expiry time.Duration
	// Names is a regular expression that each name has to match; "" is none.
	Names string
	// Usages are what certificates are for; nil is TLS, of servers and clients.
	Usages []string
}

func (p Profile) json(key string) map[string]any {
	if p.Expiry == 0 {
		p.Expiry = 24 * time.Hour
	}
	if p.Usages == nil {
		p.Usages = []string{"digital signature", "key encipherment", "server auth", "client auth"}
	}
	profile := map[string]any{"expiry": p.Expiry.String(), "usages": p.Usages}
	if p.Key != "" {
		profile["auth_key"] = key
	}
	if p.Names != "" {
		profile["name_whitelist"] = p.Names
	}
	return profile
}

// An authority is a CA certificate and its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA gives the server another CA, from when it is started again.
func (s *Server) NewCA(tb testing.TB) {
	tb.Helper()
	root, err := newAuthority("CFSSL test root", authority{})
	if err != nil {
		tb.Fatal(err)
	}
	s.Root = root.cert
	signing := root
	if !s.options.SelfSigned {
		if signing, err = newAuthority("CFSSL test intermediate", root); err != nil {
			tb.Fatal(err)
		}
	}
	if err := writePair(s.file("ca.pem"), s.file("ca.key"), signing); err != nil {
		tb.Fatal(err)
	}
}

// Intermediate has the server's CA signed by another intermediate, which it returns,
// from when it is started again.
func (s *Server) Intermediate(tb testing.TB) *x509.Certificate {
	tb.Helper()
	root, err := newAuthority("CFSSL test root", authority{})
	if err != nil {
		tb.Fatal(err)
	}
	policy, err := newAuthority("CFSSL test policy", root)
	if err != nil {
		tb.Fatal(err)
	}
	signing, err := newAuthority("CFSSL test intermediate", policy)
	if err != nil {
		tb.Fatal(err)
	}
	s.Root = root.cert
	if err := writePair(s.file("ca.pem"), s.file("ca.key"), signing); err != nil {
		tb.Fatal(err)
	}
	return policy.cert
}

// Certificate makes the files of a client certificate that the server accepts.
func (s *Server) Certificate(tb testing.TB) (certFile, keyFile string) {
	tb.Helper()
	client, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "keyturn"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, s.clients)
	if err != nil {
		tb.Fatal(err)
	}
	certFile, keyFile = s.file("client.pem"), s.file("client.key")
	if err := writePair(certFile, keyFile, client); err != nil {
		tb.Fatal(err)
	}
	return certFile, keyFile
}

// configure writes all that the server reads, but for the CA.
func (s *Server) configure() error {
	server, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "CFSSL test server"}, IPAddresses: []net.IP{net.ParseIP(host)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true,
	}, authority{})
	if err != nil {
		return err
	}
	s.TLSRoots = s.file("server.pem")
	if err := writePair(s.TLSRoots, s.file("server.key"), server); err != nil {
		return err
	}
	if s.clients, err = newAuthority("CFSSL test clients", authority{}); err != nil {
		return err
	}
	if err := writePair(s.file("clients.pem"), s.file("clients.key"), s.clients); err != nil {
		return err
	}
	policy, err := s.policy()
	if err != nil {
		return err
	}
	nets := ""
	if s.options.Nets != "" {
		nets = "nets = " + s.options.Nets + "\n"
	}
	files := map[string]string{
		"config.json": policy,
		"roots.conf":  fmt.Sprintf("[ %s ]\nprivate = file://%s\ncertificate = %s\nconfig = %s\n%s", s.options.Label, s.file("ca.key"), s.file("ca.pem"), s.file("config.json"), nets),
		"db.json":     fmt.Sprintf(`{"driver": "sqlite3", "data_source": %q}`, s.file(database)),
	}
	for name, text := range files {
		if err := durable.WriteFile(s.file(name), []byte(text), durable.PrivateFile); err != nil {
			return err
		}
	}
	return nil
}

// policy is the configuration of what is signed, in CFSSL's words.
func (s *Server) policy() (string, error) {
	keys, profiles := make(map[string]any), make(map[string]any)
	entry := func(name string, p Profile) map[string]any {
		if p.Key != "" {
			keys[name] = map[string]string{"type": "standard", "key": p.Key}
		}
		return p.json(name)
	}
	signing := map[string]any{"default": entry("default", s.options.Default), "profiles": profiles}
	for name, p := range s.options.Profiles {
		profiles[name] = entry(name, p)
	}
	text, err := json.Marshal(map[string]any{"signing": signing, "auth_keys": keys})
	return string(text), err
}

// newAuthority makes a CA, signed by the parent, or by itself if that is nil.
func newAuthority(name string, parent authority) (authority, error) {
	return sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true,
	}, parent)
}

// sign completes a certificate with a key and has it signed.
func sign(template *x509.Certificate, parent authority) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return authority{}, err
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	if parent.cert == nil {
		parent = authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func writePair(certFile, keyFile string, a authority) error {
	der, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), durable.PrivateFile); err != nil {
		return err
	}
	return durable.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), durable.PrivateFile)
}

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool, nil
}
