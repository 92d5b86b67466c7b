// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn"
)

// issue stands for where certificates come from: it returns one, and its key, as PEM.
func issue(serial int64, name string, lifetime time.Duration) []byte {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(lifetime),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		log.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		log.Fatal(err)
	}
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
}

// A server whose certificate is replaced while it runs, and which refuses a bad one.
func Example() {
	var store keyturn.Store
	first := issue(1, "www.example.com", time.Hour)
	if err := store.PutPEM("web", first, first); err != nil {
		log.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		TLSConfig: store.ServerConfig(),
		ErrorLog:  log.New(log.Writer(), "", 0),
	}
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	connect := func() {
		// Do not do this outside of an example: it trusts everybody.
		client := &tls.Config{ServerName: "www.example.com", InsecureSkipVerify: true}
		conn, err := tls.Dial("tcp", listener.Addr().String(), client)
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		fmt.Println("served:", conn.ConnectionState().PeerCertificates[0].SerialNumber)
	}

	connect()
	second := issue(2, "www.example.com", time.Hour)
	if err := store.PutPEM("web", second, second); err != nil {
		log.Fatal(err)
	}
	connect()
	stale := issue(3, "www.example.com", -time.Minute)
	if err := store.PutPEM("web", stale, stale); errors.Is(err, keyturn.ErrExpired) {
		fmt.Println("refused: it has expired")
	}
	connect()
	// Output:
	// served: 1
	// served: 2
	// refused: it has expired
	// served: 2
}

// Certificates that are opened when a handshake first needs them.
func ExampleStore_Load() {
	var store keyturn.Store
	pair := issue(1, "shop.example.com", time.Hour)
	err := store.Load("shop", keyturn.Lazy{
		Names: []string{"shop.example.com"},
		Open: func() (tls.Certificate, error) {
			fmt.Println("opening")
			return tls.X509KeyPair(pair, pair)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("loaded:", store.Len())
	for range 2 {
		cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "shop.example.com"})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("served:", cert.Leaf.SerialNumber)
	}
	// Output:
	// loaded: 1
	// opening
	// served: 1
	// served: 1
}

// What happens in a store, as events.
func ExampleStore_Observe() {
	var store keyturn.Store
	events := make(chan keyturn.Event, 16)
	cancel := store.Observe(events)

	pair := issue(1, "www.example.com", time.Hour)
	store.PutPEM("web", pair, pair)
	store.PutPEM("web", nil, nil)
	store.GetCertificate(&tls.ClientHelloInfo{ServerName: "mail.example.com"})
	cancel()
	close(events)

	for e := range events {
		switch e.Kind {
		case keyturn.Swapped, keyturn.Removed, keyturn.Opened:
			fmt.Println(e.Kind, e.ID)
		default:
			fmt.Println(e.Err)
		}
	}
	// Output:
	// swapped web
	// keyturn: putting certificate "web": certificate, private key or id is missing: no CERTIFICATE block in 0 bytes of PEM
	// keyturn: choosing a certificate: none covers server name "mail.example.com"; put one that covers it or set a default
}

// Handshakes for names that nothing covers get the default.
func ExampleStore_SetDefault() {
	var store keyturn.Store
	pair := issue(1, "www.example.com", time.Hour)
	store.PutPEM("web", pair, pair)
	hello := &tls.ClientHelloInfo{ServerName: "other.example.com"}

	_, err := store.GetCertificate(hello)
	var unknown *keyturn.UnknownNameError
	fmt.Println("refused:", errors.As(err, &unknown))

	store.SetDefault("web")
	cert, _ := store.GetCertificate(hello)
	fmt.Println("served:", cert.Leaf.DNSNames)
	// Output:
	// refused: true
	// served: [www.example.com]
}
