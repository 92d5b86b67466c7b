// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/certmagic"
	"github.com/keyturn/keyturn"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/crypto/acme/autocert"
)

// Names of contenders, as the table has them.
const (
	nameStore     = "Store"
	nameTrust     = "Store and Trust"
	nameMap       = "map"
	namePointer   = "pointer"
	nameCertMagic = "CertMagic"
	nameAutocert  = "autocert"
	nameWatcher   = "certwatcher"
	namePemfile   = "pemfile"
	nameStatic    = "tls.Config"
)

// holdInStore is Keyturn. The certificate for what is not found is set, so that a miss has an
// answer too: an error would be allocated.
func holdInStore(f *field) (*holder, error) {
	store := new(keyturn.Store)
	err := inParallel(len(f.certs), func(i int) error { return store.Put(placeID(i), f.certs[i]) })
	if err != nil {
		return nil, err
	}
	if err := store.Put("default", f.fallback); err != nil {
		return nil, err
	}
	store.SetDefault("default")
	return &holder{
		name: nameStore, choose: store.GetCertificate, kinds: kinds, close: func() {},
		replace: func(i int, cert *tls.Certificate) error { return store.Put(placeID(i), *cert) },
	}, nil
}

func placeID(i int) string { return fmt.Sprintf("%011d", i) }

// holdInMap is the least that finding a certificate by name and changing it takes: a map
// that nobody changes, of atomic pointers. For a wildcard and a miss it is asked twice, as
// it has to be.
func holdInMap(f *field) (*holder, error) {
	held := make(map[string]*atomic.Pointer[tls.Certificate])
	fallback := new(atomic.Pointer[tls.Certificate])
	fallback.Store(&f.fallback)
	pointers := make([][]*atomic.Pointer[tls.Certificate], len(f.certs))
	for i := range f.certs {
		for _, name := range f.certs[i].Leaf.DNSNames {
			p := new(atomic.Pointer[tls.Certificate])
			p.Store(&f.certs[i])
			held[strings.TrimPrefix(name, "*")] = p
			pointers[i] = append(pointers[i], p)
		}
	}
	return &holder{
		name: nameMap, kinds: kinds, close: func() {},
		choose: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := hello.ServerName
			p := held[name]
			if p == nil {
				if p = held[name[strings.IndexByte(name, '.'):]]; p == nil {
					p = fallback
				}
			}
			return p.Load(), nil
		},
		replace: func(i int, cert *tls.Certificate) error {
			for _, p := range pointers[i] {
				p.Store(cert)
			}
			return nil
		},
	}, nil
}

// holdInPointer is the least that changing a certificate takes, whatever is asked.
func holdInPointer(f *field) (*holder, error) {
	p := new(atomic.Pointer[tls.Certificate])
	p.Store(&f.certs[0])
	return &holder{
		name: namePointer, kinds: []string{"hit"}, close: func() {},
		choose:  func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Load(), nil },
		replace: func(_ int, cert *tls.Certificate) error { p.Store(cert); return nil },
	}, nil
}

// newCertMagic returns a cache and its config, which is the default but for three things:
// it keeps nothing in the home directory, what its logger prints is thrown away, and it
// answers what it does not find.
func (b *bench) newCertMagic() (*certmagic.Config, *certmagic.Cache) {
	logger := zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel))
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		Logger:           logger,
	})
	config = certmagic.New(cache, certmagic.Config{
		Storage:            &certmagic.FileStorage{Path: filepath.Join(b.dir, "certmagic")},
		FallbackServerName: fallbackName,
		Logger:             logger,
	})
	return config, cache
}

func (b *bench) holdInCertMagic(f *field) (*holder, error) {
	defer b.stage("give %s certificates to CertMagic", thousands(len(f.certs)))()
	config, cache := b.newCertMagic()
	ctx := context.Background()
	if _, err := config.CacheUnmanagedTLSCertificate(ctx, f.fallback, nil); err != nil {
		return nil, err
	}
	hashes := make([]string, len(f.certs))
	err := inParallel(len(f.certs), func(i int) (err error) {
		hashes[i], err = config.CacheUnmanagedTLSCertificate(ctx, f.certs[i], nil)
		return err
	})
	return &holder{
		name: nameCertMagic, choose: config.GetCertificate, kinds: kinds, close: cache.Stop,
		replace: func(i int, cert *tls.Certificate) error {
			hash, err := config.CacheUnmanagedTLSCertificate(ctx, *cert, nil)
			if err == nil && hash != hashes[i] {
				cache.Remove([]string{hashes[i]})
				hashes[i] = hash
			}
			return err
		},
	}, err
}

// holdInAutocert gives autocert its certificates by way of its cache, as after a restart,
// and asks for each of them once, after which it has it in memory. It finds no wildcards
// and has no default.
func (b *bench) holdInAutocert(f *field, hello tls.ClientHelloInfo) (*holder, error) {
	defer b.stage("give %s certificates to autocert", thousands(len(f.certs)))()
	manager := &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: pemCache{f}, HostPolicy: func(_ context.Context, name string) error {
		if !strings.HasPrefix(name, "host-") {
			return errors.New("unknown name")
		}
		return nil
	}}
	h := &holder{
		name: nameAutocert, choose: manager.GetCertificate, kinds: []string{"hit"}, close: func() {},
	}
	return h, inParallel(len(f.certs), func(i int) error {
		hello := hello
		hello.ServerName = f.certs[i].Leaf.DNSNames[0]
		if strings.HasPrefix(hello.ServerName, "*") {
			return nil
		}
		_, err := manager.GetCertificate(&hello)
		return err
	})
}

// pemCache is an autocert.Cache of a field. Its keys are names.
type pemCache struct{ f *field }

func (c pemCache) Get(_ context.Context, name string) ([]byte, error) {
	var i int
	if _, err := fmt.Sscanf(name, "host-%d.example.com", &i); err != nil || i >= len(c.f.certs) {
		return nil, autocert.ErrCacheMiss
	}
	chain, key, err := pemOf(c.f.certs[i])
	return append(key, chain...), err
}

func (c pemCache) Put(context.Context, string, []byte) error { return nil }
func (c pemCache) Delete(context.Context, string) error      { return nil }
