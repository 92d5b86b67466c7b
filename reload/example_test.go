// SPDX-License-Identifier: Apache-2.0

package reload_test

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
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
)

// issue stands for where certificates come from: it returns one, which is its own CA,
// and its key, as PEM.
func issue(serial int64, name string) (cert, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		DNSNames:              []string{name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		log.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		log.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		log.Fatal(err)
	}
}

// A certificate that is renewed on disk, with an accident in between.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key := issue(1, "www.example.com")
	write(certFile, cert)
	write(keyFile, key)

	var store keyturn.Store
	watcher, err := reload.Watch(reload.Options{Logger: slog.New(slog.DiscardHandler)},
		reload.KeyPair(&store, "web", certFile, keyFile))
	if err != nil {
		log.Fatal(err)
	}
	defer watcher.Close()
	served := func() {
		cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "www.example.com"})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("served:", cert.Leaf.SerialNumber)
	}
	served()

	// The Watcher would notice by itself; Reload is there to know when it has.
	cert, key = issue(2, "www.example.com")
	write(keyFile, key)
	err = watcher.Reload()
	fmt.Println("key of another certificate:", errors.Is(err, keyturn.ErrKeyMismatch))
	served()

	write(certFile, cert)
	if err := watcher.Reload(); err != nil {
		log.Fatal(err)
	}
	served()
	// Output:
	// served: 1
	// key of another certificate: true
	// served: 1
	// served: 2
}

// The CAs whose clients a server admits.
func ExampleCAs() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "clients.pem")
	first, _ := issue(1, "first CA")
	second, _ := issue(2, "second CA")
	write(file, first)

	// In a server, this is the method SetClientCAs of a Trust.
	set := func(*x509.CertPool) { fmt.Println("the CAs have changed") }
	watcher, err := reload.Watch(reload.Options{Logger: slog.New(slog.DiscardHandler)}, reload.CAs(file, set))
	if err != nil {
		log.Fatal(err)
	}
	defer watcher.Close()

	write(file, append(first, second...))
	if err := watcher.Reload(); err != nil {
		log.Fatal(err)
	}
	write(file, nil)
	fmt.Println("an empty file is refused:", watcher.Reload() != nil)
	// Output:
	// the CAs have changed
	// the CAs have changed
	// an empty file is refused: true
}
