// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A trust is where pools are put.
type trust struct{ pools []*x509.CertPool }

func (tr *trust) set(pool *x509.CertPool) { tr.pools = append(tr.pools, pool) }

// has fails unless exactly n pools were put, and the last has these certificates.
func (tr *trust) has(t *testing.T, n int, certs ...*authority) {
	t.Helper()
	if len(tr.pools) != n {
		t.Fatalf("%d pools were put, want %d", len(tr.pools), n)
	}
	want := x509.NewCertPool()
	for _, c := range certs {
		want.AddCert(c.cert)
	}
	if !tr.pools[n-1].Equal(want) {
		t.Errorf("the pool is not of the %d certificates it should be", len(certs))
	}
}

func bundle(authorities ...*authority) []byte {
	var all [][]byte
	for _, a := range authorities {
		all = append(all, certPEM(a.cert))
	}
	return slices.Concat(all...)
}

func TestCAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	a, b, old := newCA(t, "a", nil), newCA(t, "b", nil), newCA(t, "old", nil, expired)
	pinned := newCA(t, "pinned", nil, func(c *x509.Certificate) { c.IsCA = false })
	intermediate := newCA(t, "intermediate", a)
	_, leaf, key := a.leaf(t)

	var got trust
	write(t, file, bundle(a, b))
	journal := newJournal()
	w := called(t, Options{Logger: journal.logger()}, CAs(file, got.set))
	got.has(t, 1, a, b)

	// The same set: nothing.
	write(t, file, append(append([]byte("a comment\n"), bundle(b, a, b)...), key...))
	must(t, w.Reload())
	got.has(t, 1, a, b)

	for name, bad := range map[string]struct {
		text  string
		bytes []byte
	}{
		"empty":       {"it is empty", nil},
		"junk":        {"no CERTIFICATE block", []byte("junk")},
		"only a key":  {"no CERTIFICATE block", key},
		"cut short":   {"cut short", bundle(a, b)[:len(bundle(a, b))-40]},
		"no DER":      {"parsing certificate 2 of 2", append(bundle(a), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...)},
		"a leaf":      {"no CA's and not signed by itself", append(bundle(a), leaf...)},
		"all expired": {"all 1 CA certificates have expired", bundle(old)},
		"too many":    {"more than 1000 certificates", bytes.Repeat(bundle(a), maxPoolCAs+1)},
		"too large":   {"larger than the 4096 KiB", make([]byte, maxPool+1)},
	} {
		write(t, file, bad.bytes)
		err := w.Reload()
		refuses(t, err, bad.text, file)
		got.has(t, 1, a, b)
		if _, err := watchCalled(Options{}, CAs(file, got.set)); err == nil {
			t.Errorf("%s: taken at the start", name)
		}
		got.has(t, 1, a, b)
	}
	journal.drain()

	write(t, file, bundle(a, old, pinned, intermediate))
	must(t, w.Reload())
	got.has(t, 2, a, old, pinned, intermediate)
	if lines := strings.Join(journal.drain(), ""); !strings.Contains(lines, "CN=old") || !strings.Contains(lines, "has expired on") || !strings.Contains(lines, "good again") {
		t.Errorf("logged %s, want that one has expired, and the recovery", lines)
	}
	write(t, file, bundle(b))
	must(t, w.Reload())
	got.has(t, 3, b)
}

func TestCADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	path := func(name string) string { return filepath.Join(dir, name) }
	a, b, c := newCA(t, "a", nil), newCA(t, "b", nil), newCA(t, "c", nil)
	write(t, path("a.pem"), bundle(a))
	write(t, path("..data/more.crt"), bundle(b, a))
	must(t, os.Symlink("..data/more.crt", path("more.crt")))
	for _, name := range []string{".hidden.pem", "README", "folder.pem/c.pem"} {
		write(t, path(name), []byte("junk"))
	}
	var got trust
	w := called(t, Options{}, CAs(dir, got.set))
	got.has(t, 1, a, b)
	write(t, path("c.cer"), bundle(c))
	must(t, w.Reload())
	got.has(t, 2, a, b, c)
	// One bad file of several: all stays, so that no CA is lost by half a copy.
	write(t, path("c.cer"), nil)
	must(t, os.Remove(path("a.pem")))
	refuses(t, w.Reload(), "c.cer: it is empty")
	got.has(t, 2, a, b, c)
	write(t, path("c.cer"), bundle(c))
	must(t, os.Remove(path("more.crt")))
	must(t, w.Reload())
	got.has(t, 3, c) // taking a file out is how to stop trusting
	// Except for the last.
	must(t, os.Remove(path("c.cer")))
	refuses(t, w.Reload(), "is it mounted?")
	must(t, os.Rename(dir, dir+".away"))
	refuses(t, w.Reload(), "no such file")
	got.has(t, 3, c)
}
