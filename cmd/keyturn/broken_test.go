// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

// brokenServers is a program for scripts: brokenservers DIR runs servers that are
// broken in one way each until it is interrupted. It writes the address of each to a
// file of the name that it has in start, files in PEM for the doctor, and at last the
// file ready.
func brokenServers() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := &broken{dir: os.Args[1], begun: time.Now()}
	b.must(os.MkdirAll(b.dir, 0o700))
	b.start()
	b.write("ready", nil)
	<-ctx.Done()
}

type broken struct {
	dir   string
	begun time.Time
	n     int64
}

func (b *broken) must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func (b *broken) write(name string, text []byte) {
	b.must(os.WriteFile(filepath.Join(b.dir, name), text, 0o600))
}

// issue makes a certificate that lives from, and for, so many hours as seen from now.
func (b *broken) issue(by *tls.Certificate, from, to int, change func(*x509.Certificate)) *tls.Certificate {
	b.n++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	b.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(b.n),
		NotBefore:    b.begun.Add(time.Duration(from) * time.Hour),
		NotAfter:     b.begun.Add(time.Duration(to) * time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	made := &tls.Certificate{PrivateKey: key}
	signer, issuer := any(key), template
	if by != nil {
		signer, issuer = by.PrivateKey, by.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	b.must(err)
	made.Leaf, err = x509.ParseCertificate(der)
	b.must(err)
	made.Certificate = [][]byte{der}
	if by != nil && by.Leaf.Subject.CommonName == "Test intermediate" {
		made.Certificate = append(made.Certificate, by.Certificate[0])
	}
	return made
}

func (b *broken) ca(by *tls.Certificate, name string) *tls.Certificate {
	return b.issue(by, -1, 2400, func(c *x509.Certificate) {
		*c = x509.Certificate{SerialNumber: c.SerialNumber, NotBefore: c.NotBefore, NotAfter: c.NotAfter, IsCA: true, BasicConstraintsValid: true}
		c.Subject.CommonName = name
	})
}

// pem writes a certificate with its chain and, if it is a client's, its key.
func (b *broken) pem(name string, c *tls.Certificate, key bool) {
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	b.write(name+".pem", text)
	if !key {
		return
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	b.must(err)
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	b.write(name+".key", private)
	b.write(name+"-both.pem", append(text, private...))
}

// serve runs a server of TLS, or of what handle does.
func (b *broken) serve(name string, handle func(net.Conn)) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	b.write(name, []byte(l.Addr().String()))
	go func() {
		for {
			conn, err := l.Accept()
			b.must(err)
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
}

func (b *broken) tls(name string, config *tls.Config) {
	b.serve(name, func(conn net.Conn) { _, _ = io.Copy(io.Discard, tls.Server(conn, config)) })
}

func (b *broken) with(name string, c *tls.Certificate) {
	b.tls(name, &tls.Config{Certificates: []tls.Certificate{*c}})
}

func (b *broken) start() {
	root, other := b.ca(nil, "Test root"), b.ca(nil, "Other root")
	between := b.ca(root, "Test intermediate")
	b.pem("ca", root, false)
	b.pem("other-ca", other, false)
	client := func(c *x509.Certificate) {
		c.ExtKeyUsage, c.Subject.CommonName = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, "a client"
	}
	b.pem("client", b.issue(root, -1, 240, client), true)
	b.pem("client-other", b.issue(other, -1, 240, client), true)
	b.pem("client-expired", b.issue(root, -9, -1, client), true)
	b.pem("client-usage", b.issue(root, -1, 240, nil), true)

	good := b.issue(between, -1, 240, nil)
	b.with("good", good)
	b.with("unknown-authority", b.issue(other, -1, 240, nil))
	b.with("expired", b.issue(between, -90, -30, nil))
	b.with("not-yet-valid", b.issue(between, 30, 90, nil))
	b.with("expires-soon", b.issue(between, -99, 1, nil))
	b.with("missing-eku", b.issue(between, -1, 240, client))
	b.with("name-mismatch", b.issue(between, -1, 240, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"www.example.com"}, nil }))
	b.with("common-name", b.issue(between, -1, 240, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames, c.IPAddresses = "localhost", nil, nil
	}))
	b.with("hostile", b.issue(other, -1, 240, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames = "\x1b[2J\u202e", []string{"\x1b]0;title\x07.example"}
	}))
	incomplete := *good
	incomplete.Certificate = good.Certificate[:1]
	b.with("incomplete-chain", &incomplete)
	below := b.ca(between, "Below it")
	order := b.issue(below, -1, 240, nil)
	order.Certificate = [][]byte{order.Certificate[0], between.Certificate[0], below.Certificate[0]}
	b.with("chain-order", order)

	mutual := &tls.Config{Certificates: []tls.Certificate{*good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	mutual.ClientCAs.AddCert(root.Leaf)
	b.tls("mutual", mutual)
	mutual12 := mutual.Clone()
	mutual12.MaxVersion = tls.VersionTLS12
	b.tls("mutual12", mutual12)

	b.with("before", b.issue(between, -2, 240, nil))
	after := b.issue(between, -1, 260, nil)
	b.pem("after", after, false)
	b.with("after", after)

	b.tls("unknown-name", &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "" {
			return good, nil
		}
		return nil, errors.New("unknown name")
	}})
	b.tls("protocol-version", &tls.Config{Certificates: []tls.Certificate{*good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	b.serve("not-tls", func(conn net.Conn) { fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	b.serve("closed", func(net.Conn) {})
	b.serve("no-answer", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
}
