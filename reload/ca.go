// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of a pool. The bundles of browsers and systems have about 150 certificates in
// some 220 KiB.
const (
	maxPool    = 4 << 20
	maxPoolCAs = 1000
)

// CAs keeps the CA certificates of path, as PEM, where set puts them: it is called with
// a new pool by [Watch], and again whenever the set of certificates has changed, as in
//
//	reload.CAs("/etc/app/clients.pem", trust.SetClientCAs)
//
// path is a file, or a directory of files that end in .pem, .crt or .cer and do not begin
// with a dot; folders in it are not entered. All files have at most 4 MiB and 1000
// certificates, repeated ones included. PEM blocks of other types are skipped.
//
// A pool is all that is in one Source: two of the same set replace each other's.
//
// The pool changes as a whole, or not at all. A fault, on which everything that was
// trusted stays trusted and nothing else, is: a file that cannot be read or has no
// certificate, a certificate that does not parse, or that is neither a CA's nor signed
// by itself (such a leaf would be trusted for what it is not: put its issuer there),
// and, above all, no certificate: set never gets an empty pool. A CA that has expired,
// or is not valid yet, is taken, since verifying looks at the time, and this machine's
// may be wrong; one that has expired gives a warning, and if all have, that is a fault.
//
// To stop trusting a CA, take its certificate out of the file, or its file out of the
// directory while another remains there.
//
// set must not wait, nor call the [Watcher].
func CAs(path string, set func(*x509.CertPool)) Source { return &pool{path, set} }

// A pool is a Source, and the only item of it.
type pool struct {
	path string
	set  func(*x509.CertPool)
}

func (p *pool) items() ([]item, []string, error) { return []item{p}, nil, nil }
func (p *pool) key() any                         { return p }
func (p *pool) held() bool                       { return true }
func (p *pool) String() string                   { return "CA certificates of " + p.path }

func (p *pool) paths() []string {
	files, err := p.files()
	if err != nil {
		return []string{p.path}
	}
	return append(files, p.path)
}

func (p *pool) files() ([]string, error) {
	if fi, err := os.Stat(p.path); err != nil || !fi.IsDir() {
		return []string{p.path}, err
	}
	entries, err := list(p.path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(p.path, name)
		ending := filepath.Ext(name)
		if !strings.HasPrefix(name, ".") && slices.Contains([]string{".pem", ".crt", ".cer"}, ending) && !isDir(path, e) {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no file that ends in .pem, .crt or .cer is in %s; is it the right directory, and is it mounted?", p.path)
	}
	slices.Sort(files)
	return files, nil
}

// read returns each file's name before its bytes, so that check can tell where a
// certificate stands.
func (p *pool) read() (content, error) {
	files, err := p.files()
	if err != nil {
		return content{}, err
	}
	var c content
	left := maxPool
	for _, file := range files {
		data, _, err := readFile(file, maxPool)
		if err != nil {
			return content{}, err
		}
		if left -= len(data); left < 0 {
			return content{}, tooLarge(p.path, maxPool)
		}
		c.parts = append(c.parts, []byte(file), data)
	}
	return c, nil
}

func (p *pool) check(c content, _ func(string) ([]byte, error)) (*version, error) {
	var all []*x509.Certificate
	for part := range slices.Chunk(c.parts, 2) {
		certs, err := parseCAs(part[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part[0], err)
		}
		all = append(all, certs...)
		if len(all) > maxPoolCAs {
			return nil, fmt.Errorf("it has more than %d certificates; is it the right one?", maxPoolCAs)
		}
	}
	slices.SortFunc(all, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	all = slices.CompactFunc(all, (*x509.Certificate).Equal)

	now := time.Now()
	v := &version{message: "CA certificates are live"}
	pool := x509.NewCertPool()
	var raw [][]byte
	for _, ca := range all {
		if now.After(ca.NotAfter) {
			v.warnings = append(v.warnings, fmt.Sprintf("CA %s of %s has expired on %s; take it out, or put the current one there", describe(ca), p.path, ca.NotAfter.UTC().Format(time.RFC3339)))
		}
		raw = append(raw, ca.Raw)
		pool.AddCert(ca)
	}
	if len(v.warnings) == len(all) {
		return nil, fmt.Errorf("all %d CA certificates have expired, the last, %s, on %s; put current ones there", len(all), describe(last(all)), last(all).NotAfter.UTC().Format(time.RFC3339))
	}
	v.identity = sumOf(raw...)
	v.attrs = []any{"path", p.path, "certificates", len(all)}
	v.put = func() error { p.set(pool); return nil }
	return v, nil
}

// last returns the one that is valid the longest.
func last(certs []*x509.Certificate) *x509.Certificate {
	return slices.MaxFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

func parseCAs(data []byte) ([]*x509.Certificate, error) {
	ders, err := certificates(data)
	if err != nil {
		return nil, err
	}
	if len(ders) > maxPoolCAs {
		return nil, fmt.Errorf("more than %d certificates; is it the right file?", maxPoolCAs)
	}
	var certs []*x509.Certificate
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate %d of %d: %w", i+1, len(ders), err)
		}
		if !cert.IsCA {
			if err := selfSigned(cert); err != nil {
				return nil, fmt.Errorf("certificate %d of %d, %s, is no CA's and not signed by itself (%w); put the CA that issued it there", i+1, len(ders), describe(cert), err)
			}
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// maxRSABits is what crypto/tls verifies; beyond it, checking a signature takes long.
const maxRSABits = 8192

// selfSigned accepts leaves that are trusted one by one, and CAs of X.509 version 1.
func selfSigned(c *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return fmt.Errorf("its issuer is %.100q", c.Issuer)
	}
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return errors.New("its key is too large")
	}
	return c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
}

// describe names a certificate in a message, quoted and cut.
func describe(c *x509.Certificate) string { return fmt.Sprintf("%.100q", c.Subject) }
