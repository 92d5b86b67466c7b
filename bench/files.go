// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/keyturn/keyturn"
	"google.golang.org/grpc/credentials/tls/certprovider"
	"google.golang.org/grpc/credentials/tls/certprovider/pemfile"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// A filePair is a certificate and its key in two files.
type filePair struct{ chain, key string }

func (b *bench) newFilePair(cert tls.Certificate) (filePair, error) {
	dir, err := os.MkdirTemp(b.dir, "pair-")
	if err != nil {
		return filePair{}, err
	}
	p := filePair{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	return p, p.write(cert)
}

func (p filePair) write(cert tls.Certificate) error {
	chain, key, err := pemOf(cert)
	return errors.Join(err, os.WriteFile(p.chain, chain, 0o600), os.WriteFile(p.key, key, 0o600))
}

// provider returns grpc's provider of the pair. It has the pair once it was asked for it.
func (p filePair) provider() (certprovider.Provider, error) {
	return pemfile.NewProvider(pemfile.Options{CertFile: p.chain, KeyFile: p.key, RefreshDuration: time.Hour})
}

// holdInWatcher is a CertWatcher that is told to read its files: it is not started.
func (b *bench) holdInWatcher(cert tls.Certificate) (*holder, error) {
	p, err := b.newFilePair(cert)
	if err != nil {
		return nil, err
	}
	w, err := certwatcher.New(p.chain, p.key)
	if err != nil {
		return nil, err
	}
	return &holder{name: nameWatcher, choose: w.GetCertificate, kinds: []string{"hit"}, close: func() {}}, nil
}

// holdInPemfile asks grpc's provider as its users do who are not grpc.
func (b *bench) holdInPemfile(cert tls.Certificate) (*holder, error) {
	p, err := b.newFilePair(cert)
	if err != nil {
		return nil, err
	}
	provider, err := p.provider()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	return &holder{
		name: namePemfile, kinds: []string{"hit"}, close: provider.Close,
		choose: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			material, err := provider.KeyMaterial(ctx)
			if err != nil {
				return nil, err
			}
			return &material.Certs[0], nil
		},
	}, nil
}

// reload measures what it takes to read a pair of files that has changed and to serve it.
func (b *bench) reload() ([]row, error) {
	certs, err := b.issueAll([][]string{{host(0)}, {host(0)}})
	if err != nil {
		return nil, err
	}
	p, err := b.newFilePair(certs[1])
	if err != nil {
		return nil, err
	}
	contenders, done, err := b.reloaders(p)
	if err != nil {
		return nil, err
	}
	defer done()
	all := make([]samples, len(contenders))
	for i, c := range contenders {
		all[i].contender = c.name
	}
	var before, after runtime.MemStats
	for round := range b.rounds {
		if err := p.write(certs[round%2]); err != nil {
			return nil, err
		}
		for i, c := range contenders {
			runtime.ReadMemStats(&before)
			start := time.Now()
			err := c.run(1)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all[i].ns = append(all[i].ns, float64(took))
			all[i].allocs += after.Mallocs - before.Mallocs
		}
	}
	var rows []row
	for _, s := range all {
		s.allocs /= uint64(b.rounds)
		r := row{Work: "reload a pair of files that changed", Contender: s.contender, Figure: spreadOf(s.ns), Unit: "ns", Allocs: &s.allocs}
		if s.contender != nameStatic {
			r.Ratio, r.Than = new(ratio(s, all[0])), nameStatic
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// reloaders returns whoever reads files. The first is the limit: it only parses them.
func (b *bench) reloaders(p filePair) (contenders []contender, done func(), err error) {
	var store keyturn.Store
	watcher, err := certwatcher.New(p.chain, p.key)
	if err != nil {
		return nil, nil, err
	}
	config, cache := b.newCertMagic()
	hash, ctx := "", context.Background()
	return []contender{
		{name: nameStatic, run: func(int) error {
			_, err := tls.LoadX509KeyPair(p.chain, p.key)
			return err
		}},
		{name: nameStore, run: func(int) error {
			chain, err := os.ReadFile(p.chain)
			if err != nil {
				return err
			}
			key, err := os.ReadFile(p.key)
			if err != nil {
				return err
			}
			return store.PutPEM("id", chain, key)
		}},
		{name: nameWatcher, run: func(int) error { return watcher.ReadCertificate() }},
		{name: namePemfile, run: func(int) error {
			// It cannot be told to read again: a new one reads at once.
			provider, err := p.provider()
			if err != nil {
				return err
			}
			defer provider.Close()
			_, err = provider.KeyMaterial(ctx)
			return err
		}},
		{name: nameCertMagic, run: func(int) error {
			before := hash
			var err error
			if hash, err = config.CacheUnmanagedCertificatePEMFile(ctx, p.chain, p.key, nil); err == nil && before != "" {
				cache.Remove([]string{before})
			}
			return err
		}},
	}, cache.Stop, nil
}
