// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

func TestWatchRefusesAllThatIsBad(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca := newCA(t, "ca", nil)
	_, chain, key := ca.leaf(t)
	_, _, other := ca.leaf(t)
	_, old, oldKey := ca.leaf(t, expired)
	write(t, path("good.crt"), chain)
	write(t, path("good.key"), key)
	write(t, path("other.key"), other)
	write(t, path("old.crt"), old)
	write(t, path("old.key"), oldKey)
	write(t, path("junk"), []byte("junk"))
	write(t, path("large"), make([]byte, maxPair+1))

	var store keyturn.Store
	events := make(chan keyturn.Event, 10)
	defer store.Observe(events)()
	pools := 0
	w, err := watchCalled(Options{},
		KeyPair(&store, "good", path("good.crt"), path("good.key")),
		KeyPair(&store, "mismatch", path("good.crt"), path("other.key")),
		KeyPair(&store, "expired", path("old.crt"), path("old.key")),
		KeyPair(&store, "missing", path("good.crt"), path("missing.key")),
		PEM(&store, "junk", path("junk")),
		PEM(&store, "large", path("large")),
		PEM(&store, "folder", dir),
		PEM(&store, "keyless", path("good.crt")),
		PEM(&store, strings.Repeat("x", 256), path("good.crt")),
		KeyPair(&store, "good", path("good.crt"), path("good.key")),
		CAs(path("junk"), func(*x509.CertPool) { pools++ }),
		Directory(&store, path("none")),
	)
	if w != nil {
		t.Error("there is a Watcher beside an error")
	}
	refuses(t, err, `pair "mismatch"`, "different pairs", `pair "expired"`, "was valid until", `pair "missing"`, "missing.key: no such file",
		`pair "junk"`, "no CERTIFICATE block", `pair "large"`, "larger than the 256 KiB", `pair "folder"`, "no regular file",
		`pair "keyless"`, "no PRIVATE KEY block", "another source feeds the same", "CA certificates of", "directory "+path("none"))
	for _, sentinel := range []error{keyturn.ErrKeyMismatch, keyturn.ErrExpired, os.ErrNotExist} {
		if !errors.Is(err, sentinel) {
			t.Errorf("the error does not wrap %v", sentinel)
		}
	}
	if store.Len() != 0 || len(events) != 0 || pools != 0 {
		t.Errorf("%d certificates, %d events and %d pools, want none: one was bad", store.Len(), len(events), pools)
	}
	_, err = watchCalled(Options{})
	refuses(t, err, "nothing to watch")
}

// What did not change is not put again, and what changed but means the same neither.
func TestOnlyChangesAreSwapped(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.pem")
	ca := newCA(t, "ca", newCA(t, "root", nil))
	first, chain, key := ca.leaf(t)
	both := append(bytes.Clone(chain), key...)
	write(t, file, both)
	var store keyturn.Store
	journal := newJournal()
	w := called(t, Options{Logger: journal.logger()}, PEM(&store, "web", file))
	events := make(chan keyturn.Event, 10)
	defer store.Observe(events)()
	serve(t, &store, "web", first)

	must(t, w.Reload())
	must(t, os.Chtimes(file, time.Now(), time.Now().Add(time.Hour)))
	must(t, w.Reload())
	write(t, file, append(key, chain...)) // in another order
	must(t, w.Reload())
	write(t, file, append([]byte("# a comment\n"+strings.Repeat("#\n", 20)), both...))
	must(t, w.Reload())
	if len(events) != 0 {
		t.Errorf("swapped for nothing: %v", <-events)
	}

	// Another pair, in a file of the same size and time.
	fi, err := os.Stat(file)
	must(t, err)
	second, chain, key := ca.leaf(t)
	next := append(chain, key...)
	size := max(len(next), int(fi.Size()))
	write(t, file, append(next, bytes.Repeat([]byte("\n"), size-len(next))...))
	must(t, os.Chtimes(file, fi.ModTime(), fi.ModTime()))
	must(t, w.Reload())
	serve(t, &store, "web", second)
	if lines := journal.drain(); len(lines) != 2 || !strings.Contains(lines[1], "certificate is live") || !strings.Contains(lines[1], "id=web names=[a.test]") {
		t.Errorf("logged %q, want the two that went live", lines)
	}
}

func TestFaultsAreLoggedOnce(t *testing.T) {
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "web.crt"), filepath.Join(dir, "web.key")
	ca := newCA(t, "ca", nil)
	first, chain, private := ca.leaf(t)
	write(t, crt, chain)
	write(t, key, private)
	var store keyturn.Store
	journal := newJournal()
	w := called(t, Options{Logger: journal.logger()}, KeyPair(&store, "web", crt, key))
	journal.drain()
	_, stale, staleKey := ca.leaf(t, expired)

	fault := func(name string, want int, text string) {
		t.Helper()
		for range 3 {
			refuses(t, w.Reload(), text)
		}
		lines := journal.drain()
		if len(lines) != want || want == 1 && (!strings.Contains(lines[0], "level=ERROR") || !strings.Contains(lines[0], "what is live stays live") || !strings.Contains(lines[0], text)) {
			t.Errorf("%s: logged %q, want %d", name, lines, want)
		}
		for _, line := range lines {
			if strings.Contains(line, "PRIVATE KEY-----") {
				t.Errorf("%s: logged a key: %s", name, line)
			}
		}
		serve(t, &store, "web", first)
	}
	must(t, os.Remove(key))
	fault("missing", 1, "no such file")
	write(t, key, []byte("junk"))
	fault("junk", 1, "no PRIVATE KEY block")
	must(t, os.Remove(key))
	fault("missing again", 0, "no such file")
	write(t, crt, stale)
	write(t, key, staleKey)
	fault("expired", 1, "has expired") // the message tells the time
	write(t, crt, chain)
	write(t, key, private)
	for range 3 {
		must(t, w.Reload())
	}
	if lines := journal.drain(); len(lines) != 1 || !strings.Contains(lines[0], "good again") {
		t.Errorf("logged %q, want one recovery", lines)
	}
	must(t, os.Remove(key))
	fault("missing after a recovery", 1, "no such file")
}

// A program that writes the certificate and then the key is waited for.
func TestPairThatIsBeingWritten(t *testing.T) {
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "web.crt"), filepath.Join(dir, "web.key")
	ca := newCA(t, "ca", nil)
	_, chain, private := ca.leaf(t)
	write(t, crt, chain)
	write(t, key, private)
	var store keyturn.Store
	journal := newJournal()
	s := &slowPair{pair: KeyPair(&store, "web", crt, key).(*pair)}
	w := called(t, Options{Logger: journal.logger()}, s)
	second, chain, private := ca.leaf(t)
	write(t, crt, chain)
	s.after = func() { write(t, key, private) }
	must(t, w.Reload())
	serve(t, &store, "web", second)
	for _, line := range journal.drain() {
		if strings.Contains(line, "ERROR") {
			t.Errorf("logged %q, but the files were only being written", line)
		}
	}

	// One that never ends is not believed.
	s.each = func() {
		_, chain, private := ca.leaf(t)
		write(t, crt, chain)
		write(t, key, private)
	}
	s.each()
	refuses(t, w.Reload(), "change all the time")
	serve(t, &store, "web", second)
}

// A slowPair is a pair to whose files something happens after they were read.
type slowPair struct {
	*pair
	after, each func()
}

func (s *slowPair) items() ([]item, []string, error) { return []item{s}, nil, nil }

func (s *slowPair) read() (content, error) {
	c, err := s.pair.read()
	if s.after != nil {
		s.after()
		s.after = nil
	}
	if s.each != nil {
		s.each()
	}
	return c, err
}

func TestModeOfKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.pem")
	ca := newCA(t, "ca", nil)
	var store keyturn.Store
	journal := newJournal()
	put := func() int64 {
		serial, chain, key := ca.leaf(t)
		write(t, file, append(chain, key...))
		return serial
	}
	put()
	must(t, os.Chmod(file, 0o644))
	w := called(t, Options{Logger: journal.logger()}, PEM(&store, "web", file))
	if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "mode 0644") != 1 || !strings.Contains(lines, "level=WARN") {
		t.Errorf("logged %s, want one warning of the mode", lines)
	}
	next := put()
	must(t, w.Reload())
	serve(t, &store, "web", next)
	if lines := strings.Join(journal.drain(), ""); strings.Contains(lines, "WARN") {
		t.Errorf("logged %s, want the warning once", lines)
	}
}

// Kubernetes swaps its link between the reading of the certificate and of the key.
func TestPairReadAcrossASwap(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca := newCA(t, "ca", nil)
	mount := func(version string) int64 {
		serial, chain, private := ca.leaf(t)
		write(t, path(version+"/tls.crt"), chain)
		write(t, path(version+"/tls.key"), private)
		must(t, os.Symlink(version, path("..data_tmp")))
		must(t, os.Rename(path("..data_tmp"), path("..data")))
		return serial
	}
	mount("..1")
	var store keyturn.Store
	journal := newJournal()
	s := &acrossSwap{pair: KeyPair(&store, "web", path("..data/tls.crt"), path("..data/tls.key")).(*pair)}
	w := called(t, Options{Logger: journal.logger()}, s)
	mount("..2")
	var want int64
	s.swap = func() { want = mount("..3") }
	must(t, w.Reload())
	serve(t, &store, "web", want)
	if lines := strings.Join(journal.drain(), ""); strings.Contains(lines, "ERROR") || strings.Count(lines, "certificate is live") != 2 {
		t.Errorf("logged %s, want the first and the last only", lines)
	}
}

// An acrossSwap is a pair of which the certificate is read before a swap, and the key after.
type acrossSwap struct {
	*pair
	swap func()
}

func (s *acrossSwap) items() ([]item, []string, error) { return []item{s}, nil, nil }

func (s *acrossSwap) read() (content, error) {
	before, err := s.pair.read()
	if err != nil || s.swap == nil {
		return before, err
	}
	s.swap()
	s.swap = nil
	after, err := s.pair.read()
	after.parts[0] = before.parts[0]
	return after, err
}
