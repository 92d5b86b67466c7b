// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
)

// A folder writes pairs into a directory.
type folder struct {
	t   *testing.T
	dir string
	ca  *authority
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// put writes a new pair, into one file if key is empty.
func (f *folder) put(cert, key string) int64 {
	f.t.Helper()
	serial, chain, private := f.ca.leaf(f.t)
	if key == "" {
		write(f.t, f.path(cert), append(chain, private...))
	} else {
		write(f.t, f.path(cert), chain)
		write(f.t, f.path(key), private)
	}
	return serial
}

func TestDirectory(t *testing.T) {
	f := &folder{t, filepath.Join(t.TempDir(), "certs"), newCA(t, "ca", nil)}
	want := map[string]int64{
		"crt":         f.put("crt.crt", "crt.key"),
		"split":       f.put("split-cert.pem", "split-key.pem"),
		"mkcert":      f.put("mkcert.pem", "mkcert-key.pem"),
		"haproxy.org": f.put("haproxy.org.pem", ""),
		"secret":      f.put("secret/tls.crt", "secret/tls.key"),
		"linked":      f.put("..data/linked/tls.crt", "..data/linked/tls.key"),
		"a.test":      f.put("../archive/a.test/fullchain1.pem", "../archive/a.test/privkey1.pem"),
	}
	must(t, os.Symlink("..data/linked", f.path("linked")))
	must(t, os.Mkdir(f.path("a.test"), 0o700))
	for _, name := range []string{"fullchain", "privkey"} {
		must(t, os.Symlink("../../archive/a.test/"+name+"1.pem", f.path("a.test/"+name+".pem")))
	}
	for _, name := range []string{"README", "ca.crt", "ca.pem", ".hidden.crt", "empty/README", "a.test/cert.pem"} {
		write(t, f.path(name), []byte("junk"))
	}
	var store keyturn.Store
	journal := newJournal()
	w := called(t, Options{Logger: journal.logger()}, Directory(&store, f.dir))
	if store.Len() != len(want) {
		t.Errorf("%d pairs, want %d", store.Len(), len(want))
	}
	check := func() {
		t.Helper()
		for id, serial := range want {
			serve(t, &store, id, serial)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	check()
	journal.drain()

	// A pair more, one anew, one that is bad now, one in two forms, and one of which
	// both files go away: each by itself.
	want["more"] = f.put("more.crt", "more.key")
	want["mkcert"] = f.put("mkcert.pem", "mkcert-key.pem")
	write(t, f.path("crt.key"), []byte("junk"))
	f.put("split/tls.crt", "split/tls.key")
	must(t, os.RemoveAll(f.path("secret")))
	for range 2 {
		refuses(t, w.Reload(), `pair "crt"`, "crt.key: it has no PRIVATE KEY", `pair "split"`, "have one id", `pair "secret"`, "no such file")
	}
	check()
	if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "ERROR") != 3 || strings.Count(lines, "certificate is live") != 2 {
		t.Errorf("logged %s, want three faults and two swaps", lines)
	}

	// Whoever removes the files and then the certificate has it no longer.
	must(t, os.RemoveAll(f.path("more.crt")))
	must(t, os.RemoveAll(f.path("more.key")))
	refuses(t, w.Reload(), `pair "more"`)
	store.Remove("more")
	if err := w.Reload(); err == nil || strings.Contains(err.Error(), `"more"`) {
		t.Errorf("got %v, want nothing of what was removed", err)
	}
	want["more"] = f.put("more.crt", "more.key")
	refuses(t, w.Reload(), `pair "crt"`)
	check()
	journal.drain()

	// certbot renews.
	want["a.test"] = f.put("../archive/a.test/fullchain2.pem", "../archive/a.test/privkey2.pem")
	for _, name := range []string{"fullchain", "privkey"} {
		must(t, os.Symlink("../../archive/a.test/"+name+"2.pem", f.path(name)))
		must(t, os.Rename(f.path(name), f.path("a.test/"+name+".pem")))
	}
	// All that was at fault comes right, one of them in another form.
	want["crt"] = f.put("crt.crt", "crt.key")
	want["secret"] = f.put("secret.pem", "")
	must(t, os.RemoveAll(f.path("split")))
	must(t, w.Reload())
	check()
	if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "good again") != 3 {
		t.Errorf("logged %s, want three recoveries", lines)
	}

	// The directory itself goes away, or is empty because nothing is mounted there.
	must(t, os.Rename(f.dir, f.dir+".away"))
	refuses(t, w.Reload(), "directory "+f.dir, "no such file")
	check()
	must(t, os.Mkdir(f.dir, 0o700))
	refuses(t, w.Reload(), "is it mounted?")
	check()
	if lines := journal.drain(); len(lines) != 2 || !strings.Contains(lines[0], "what is live stays live") {
		t.Errorf("logged %q, want one line each time", lines)
	}
	must(t, os.Remove(f.dir))
	must(t, os.Rename(f.dir+".away", f.dir))
	want["crt"] = f.put("crt.crt", "crt.key")
	must(t, w.Reload())
	check()
	if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "good again") != 1 {
		t.Errorf("logged %s, want the recovery of the directory", lines)
	}
}

func TestDirectoryRefusesHalves(t *testing.T) {
	f := &folder{t, t.TempDir(), newCA(t, "ca", nil)}
	good := f.put("good.crt", "good.key")
	for _, name := range []string{"a.crt", "b.key", "c-cert.pem", "d-key.pem", "e/tls.crt", "f/privkey.pem"} {
		write(t, f.path(name), []byte("junk"))
	}
	f.put("g.pem", "")
	f.put("g.crt", "g.key")
	f.put("h/tls.crt", "h/tls.key")
	f.put("h/fullchain.pem", "h/privkey.pem")
	var store keyturn.Store
	_, err := watchCalled(Options{}, Directory(&store, f.dir))
	refuses(t, err, "a.key: no such file", "b.crt: no such file", "c-key.pem: no such file", "d.pem: no such file",
		"e/tls.key: no such file", "f/fullchain.pem: no such file", `pair "g"`, `pair "h"`, "have one id")
	if n := strings.Count(err.Error(), "\n") + 1; n != 8 || store.Len() != 0 {
		t.Errorf("%d errors, want 8, and %d certificates, want none:\n%v", n, store.Len(), err)
	}
	for _, name := range []string{"a.crt", "b.key", "c-cert.pem", "d-key.pem", "e", "f", "g.pem", "h/tls.crt", "h/tls.key"} {
		must(t, os.RemoveAll(f.path(name)))
	}
	called(t, Options{}, Directory(&store, f.dir))
	serve(t, &store, "good", good)

	_, err = watchCalled(Options{}, Directory(&store, f.dir), PEM(&store, "good", f.path("good.crt")))
	refuses(t, err, "another source feeds the same")
}
