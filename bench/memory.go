// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"runtime"

	"github.com/keyturn/keyturn"
)

const (
	timesRaw      = 1.5
	partCertMagic = 6.0
)

// A keyring is what all certificates held lazily share: the key that theirs are sealed
// under, and the intermediate.
type keyring struct {
	aead         cipher.AEAD
	intermediate []byte
}

func newKeyring(a *authority) (*keyring, error) {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &keyring{aead, a.cert.Raw}, err
}

// seal returns the leaf's DER followed by its key, in PKCS #8 form and sealed, and the
// length of the leaf.
func (k *keyring) seal(cert tls.Certificate) (raw []byte, leaf int, err error) {
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, 0, err
	}
	leaf = len(cert.Certificate[0])
	raw = make([]byte, 0, leaf+len(key)+k.aead.Overhead())
	return k.aead.Seal(append(raw, cert.Certificate[0]...), nil, key, nil), leaf, nil
}

func (k *keyring) open(raw []byte, leaf int) (tls.Certificate, error) {
	pkcs8, err := k.aead.Open(nil, nil, raw[leaf:], nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	return tls.Certificate{Certificate: [][]byte{raw[:leaf:leaf], k.intermediate}, PrivateKey: key}, err
}

// memoryHeld measures the memory that certificates take: in the store unopened and then
// opened, and in CertMagic, each with all that it refers to.
func (b *bench) memoryHeld() ([]row, error) {
	n := b.memory
	names := make([][]string, n)
	for i := range names {
		names[i] = []string{host(i)}
	}
	certs, err := b.issueAll(names)
	if err != nil {
		return nil, err
	}
	held := func(who string, bytes uint64) row {
		return row{
			Work: "hold " + thousands(n) + " certificates", Contender: who,
			Figure: exactly(float64(bytes) / float64(n)), Unit: "B each",
		}
	}
	before := heap()
	magic, err := b.holdPEM(certs)
	if err != nil {
		return nil, err
	}
	inMagic := heap() - before
	magic.Stop()
	runtime.KeepAlive(magic)
	magic = nil

	before = heap()
	store, raw, err := b.holdLazily(certs)
	if err != nil {
		return nil, err
	}
	lazily := heap() - before
	if err := openAll(store, certs); err != nil {
		return nil, err
	}
	opened := heap() - before
	runtime.KeepAlive(store)
	runtime.KeepAlive(certs)

	rows := []row{held("raw bytes", raw), held("Store, lazily", lazily), held("Store, opened", opened), held(nameCertMagic, inMagic)}
	for i := range rows[1:3] {
		r := &rows[1+i]
		r.Ratio, r.Than = new(exactly(r.Figure.Median/rows[0].Figure.Median)), rows[0].Contender
	}
	rows[1].aim(fmt.Sprintf("≤ %.1f × raw bytes", timesRaw), rows[1].Ratio.Median <= timesRaw)
	times := float64(inMagic) / float64(lazily)
	rows[3].Ratio, rows[3].Than = new(exactly(times)), rows[1].Contender
	rows[3].aim(fmt.Sprintf("≥ %.0f × Store, lazily", partCertMagic), times >= partCertMagic)
	return rows, nil
}

// holdLazily returns a store with certs, none of them open, and the sum of their raw
// bytes.
func (b *bench) holdLazily(certs []tls.Certificate) (store *keyturn.Store, raw uint64, err error) {
	defer b.stage("hold %s certificates lazily", thousands(len(certs)))()
	ring, err := newKeyring(b.ca)
	if err != nil {
		return nil, 0, err
	}
	store = new(keyturn.Store)
	for i, cert := range certs {
		data, leaf, err := ring.seal(cert)
		if err != nil {
			return nil, 0, err
		}
		raw += uint64(len(data))
		err = store.Load(placeID(i), keyturn.Lazy{
			Names: []string{host(i)}, NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter, KeyType: x509.ECDSA,
			Open: func() (tls.Certificate, error) { return ring.open(data, leaf) },
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return store, raw, nil
}

// openAll opens everything as first handshakes do, and holds that it is what was loaded.
func openAll(store *keyturn.Store, certs []tls.Certificate) error {
	return inParallel(len(certs), func(i int) error {
		cert, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: host(i)})
		if err == nil && !cert.Leaf.Equal(certs[i].Leaf) {
			err = fmt.Errorf("%s has another certificate than was loaded", host(i))
		}
		return err
	})
}

// holdPEM returns CertMagic's cache with certs, given as PEM.
func (b *bench) holdPEM(certs []tls.Certificate) (interface{ Stop() }, error) {
	defer b.stage("give %s certificates to CertMagic", thousands(len(certs)))()
	config, cache := b.newCertMagic()
	return cache, inParallel(len(certs), func(i int) error {
		chain, key, err := pemOf(certs[i])
		if err != nil {
			return err
		}
		_, err = config.CacheUnmanagedCertificatePEMBytes(context.Background(), chain, key, nil)
		return err
	})
}
