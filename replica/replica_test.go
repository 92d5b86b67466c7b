// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveDir); dir != "" {
		serveFrom(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// A world is a manager by hand: it signs and publishes what a test wants.
type world struct {
	t        testing.TB
	log      bus.Boarder
	ca       *localca.CA
	signer   *seal.SigningKey
	groupKey *seal.PrivateKey
	lifetime time.Duration // of what is issued; zero is an hour

	mu sync.Mutex
	at map[string]bus.Position // guarded by mu
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, log: membus.New(), at: make(map[string]bus.Position)}
	var err error
	if w.ca, err = localca.New(localca.Config{}); err != nil {
		t.Fatal(err)
	}
	if w.signer, err = seal.GenerateSigningKey(); err != nil {
		t.Fatal(err)
	}
	if w.groupKey, err = seal.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) config() replica.Config {
	return replica.Config{
		Managers: []*seal.VerifyKey{w.signer.Public()}, Keys: []*seal.PrivateKey{w.groupKey},
		Log: w.log, Logger: slog.New(slog.DiscardHandler),
	}
}

// certificate issues for the names and returns the event's body.
func (w *world) certificate(id string, v event.Version, to *seal.PublicKey, names ...string) *event.Certificate {
	w.t.Helper()
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		w.t.Fatal(err)
	}
	csr, err := issuer.NewRequest(key, names)
	if err != nil {
		w.t.Fatal(err)
	}
	chain, err := w.ca.Issue(w.t.Context(), csr, cmp.Or(w.lifetime, time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		w.t.Fatal(err)
	}
	c := &event.Certificate{
		Group: "default", ID: id, Version: v, Names: names, Chain: chain,
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Algorithm: "ECDSA", Client: true,
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.SealKey("default", to, pkcs8); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) sign(body event.Body) []byte {
	w.t.Helper()
	data, err := event.Sign(w.signer, "default", time.Now(), body)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// put appends raw bytes under a key.
func (w *world) put(key string, data []byte) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	p, err := w.log.Append(w.t.Context(), key, w.at[key], data)
	if err != nil {
		w.t.Fatal(err)
	}
	w.at[key] = p
}

// publish issues and publishes a generation and returns the leaf.
func (w *world) publish(id string, generation uint64, names ...string) *x509.Certificate {
	w.t.Helper()
	c := w.certificate(id, event.Version{Epoch: 1, Generation: generation}, w.groupKey.Public(), names...)
	w.put(event.CertificateKey("default", id), w.sign(c))
	leaf, _ := x509.ParseCertificate(c.Chain[0])
	return leaf
}

// ahead publishes a generation whose certificate begins only after a while.
func (w *world) ahead(by time.Duration, id string, generation uint64, name string) *x509.Certificate {
	w.t.Helper()
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(by), NotAfter: time.Now().Add(by + time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(key)
	c := &event.Certificate{
		Group: "default", ID: id, Version: event.Version{Epoch: 1, Generation: generation}, Names: []string{name},
		Chain: [][]byte{der}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Algorithm: "ECDSA",
	}
	if err := c.SealKey("default", w.groupKey.Public(), pkcs8); err != nil {
		w.t.Fatal(err)
	}
	w.put(event.CertificateKey("default", id), w.sign(c))
	return leaf
}

func (w *world) open(c replica.Config) *replica.Replica {
	w.t.Helper()
	r, err := replica.Open(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = r.Close() })
	return r
}

// sync publishes a marker and waits until the replica has it, and so all that
// was published before.
func (w *world) sync(r *replica.Replica) {
	w.t.Helper()
	id := event.NewID()
	w.publish(id, 1, "marker.example")
	for r.Version(id) == (event.Version{}) {
		if err := w.t.Context().Err(); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func serves(t testing.TB, r *replica.Replica, name string) *x509.Certificate {
	t.Helper()
	cert, err := r.Store().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return nil
	}
	if !cert.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(cert.PrivateKey.(crypto.Signer).Public()) {
		t.Fatal("a key that is not the leaf's")
	}
	return cert.Leaf
}

func wantServed(t testing.TB, r *replica.Replica, name string, want *x509.Certificate) {
	t.Helper()
	if got := serves(t, r, name); got == nil || !got.Equal(want) {
		t.Fatalf("%s: not the certificate that was published last", name)
	}
}

const id1, id2 = "AAAAAAAAAAA", "BBBBBBBBBBA"

func TestFollowsTheBus(t *testing.T) {
	w := newWorld(t)
	first := w.publish(id1, 1, "a.example")
	var changes []replica.Change
	c := w.config()
	c.OnChange = func(ch replica.Change) { changes = append(changes, ch) }
	r := w.open(c)
	wantServed(t, r, "a.example", first)

	second := w.publish(id1, 2, "a.example")
	other := w.publish(id2, 1, "b.example")
	w.sync(r)
	wantServed(t, r, "a.example", second)
	wantServed(t, r, "b.example", other)

	w.put(event.CertificateKey("default", id1), w.sign(&event.Removal{Group: "default", ID: id1, Version: event.Version{Epoch: 1, Generation: 3}}))
	w.sync(r)
	if serves(t, r, "a.example") != nil {
		t.Fatal("removed, and still served")
	}
	if s := r.Status(); !s.Following || s.LastError != nil || s.Removed != 1 || len(s.Refused) != 0 {
		t.Fatalf("%+v", s)
	}
	if ch := changes[1]; ch.ID != id1 || ch.Version.Generation != 2 || !ch.Leaf.Equal(second) || !ch.Previous.Equal(first) {
		t.Errorf("change %+v", ch)
	}
}

func TestWhatIsRefused(t *testing.T) {
	w := newWorld(t)
	good := w.publish(id1, 5, "a.example")
	r := w.open(w.config())
	key := event.CertificateKey("default", id1)
	v := func(epoch, generation uint64) event.Version {
		return event.Version{Epoch: epoch, Generation: generation}
	}
	stranger, _ := seal.GenerateSigningKey()
	otherKey, _ := seal.GenerateKey()
	strangers, _ := event.Sign(stranger, "default", time.Now(), w.certificate(id1, v(1, 6), w.groupKey.Public(), "a.example"))
	otherTenants, _ := event.Sign(w.signer, "other", time.Now(), w.certificate(id1, v(1, 6), w.groupKey.Public(), "a.example"))
	mixed := w.certificate(id1, v(1, 6), w.groupKey.Public(), "a.example")
	mixed.Chain = w.certificate(id1, v(1, 6), w.groupKey.Public(), "a.example").Chain
	wrongKey := w.certificate(id1, v(1, 6), w.groupKey.Public(), "a.example")
	pkcs8 := pkcs8Of(t)
	if err := wrongKey.SealKey("default", w.groupKey.Public(), pkcs8); err != nil {
		t.Fatal(err)
	}
	newer := w.sign(w.certificate(id1, v(1, 6), w.groupKey.Public(), "a.example"))
	tampered := bytes.Clone(newer)
	tampered[len(tampered)/2] ^= 1

	for _, c := range []struct {
		what   string
		reason replica.Reason
		data   []byte
	}{
		{"an unknown signer", replica.RefusedSigner, strangers},
		{"a changed byte", replica.RefusedSignature, tampered},
		{"another tenant's", replica.RefusedMoved, otherTenants},
		{"another certificate's", replica.RefusedMoved, w.sign(w.certificate(id2, v(1, 6), w.groupKey.Public(), "a.example"))},
		{"another group's", replica.RefusedMoved, w.sign(&event.Removal{Group: "other", ID: id1, Version: v(1, 6)})},
		{"junk", replica.RefusedMalformed, []byte("junk")},
		{"nothing", replica.RefusedMalformed, nil},
		{"a higher version byte", replica.RefusedUnsupported, append([]byte{9}, newer[1:]...)},
		{"an older generation", replica.RefusedReplay, w.sign(w.certificate(id1, v(1, 4), w.groupKey.Public(), "a.example"))},
		{"the same generation", replica.RefusedReplay, w.sign(w.certificate(id1, v(1, 5), w.groupKey.Public(), "a.example"))},
		{"an older removal", replica.RefusedReplay, w.sign(&event.Removal{Group: "default", ID: id1, Version: v(1, 4)})},
		{"sealed to another group", replica.RefusedKey, w.sign(w.certificate(id1, v(1, 6), otherKey.Public(), "a.example"))},
		{"a key bound to another chain", replica.RefusedKey, w.sign(mixed)},
		{"a key that is not the leaf's", replica.RefusedCertificate, w.sign(wrongKey)},
	} {
		before := r.Status().Refused[c.reason]
		w.put(key, c.data)
		w.sync(r)
		if n := r.Status().Refused[c.reason] - before; n != 1 {
			t.Errorf("%s: refused %d times as %s: %v", c.what, n, c.reason, r.Status().Refused)
		}
		wantServed(t, r, "a.example", good)
	}
	// The same event, again, is no replay.
	w.put(key, newer)
	w.sync(r)
	replays := r.Status().Refused[replica.RefusedReplay]
	w.put(key, append([]byte(nil), tampered...))
	w.put(key, newer)
	w.sync(r)
	if r.Status().Refused[replica.RefusedReplay] != replays {
		t.Error("what is held already counts as a replay")
	}
	// An epoch is above every generation of the one before.
	raised := w.certificate(id1, v(2, 1), w.groupKey.Public(), "a.example")
	w.put(key, w.sign(raised))
	w.sync(r)
	if r.Version(id1) != v(2, 1) {
		t.Error("a raised epoch was refused")
	}
}

func pkcs8Of(t *testing.T) []byte {
	t.Helper()
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestServesFromItsSnapshotWithoutABus(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.Snapshot = t.TempDir()
	first := w.publish(id1, 1, "a.example")
	gone := w.publish(id2, 1, "b.example")
	r := w.open(c)
	second := w.publish(id1, 2, "a.example")
	w.put(event.CertificateKey("default", id2), w.sign(&event.Removal{Group: "default", ID: id2, Version: event.Version{Epoch: 1, Generation: 2}}))
	w.sync(r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	wantServed(t, r, "a.example", second) // a closed replica's store goes on

	offline := c
	offline.Log = nil
	r = w.open(offline)
	wantServed(t, r, "a.example", second)
	if serves(t, r, "b.example") != nil {
		t.Error("a removed certificate came back")
	}
	_ = r.Close()

	// The bus is back, with news, and with a replay of what was removed.
	third := w.publish(id1, 3, "a.example")
	w.put(event.CertificateKey("default", id2), w.sign(w.certificate(id2, event.Version{Epoch: 1, Generation: 1}, w.groupKey.Public(), "b.example")))
	r = w.open(c)
	<-r.CaughtUp()
	wantServed(t, r, "a.example", third)
	if serves(t, r, "b.example") != nil || r.Status().Refused[replica.RefusedReplay] != 1 {
		t.Error("a removed certificate was replayed")
	}
	_, _ = first, gone
}

func TestABusThatIsDownStopsNoStart(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.Snapshot = t.TempDir()
	want := w.publish(id1, 1, "a.example")
	_ = w.open(c).Close()
	c.Log = deadLog{}
	wantServed(t, w.open(c), "a.example", want)

	c.Snapshot = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := replica.Open(ctx, c); err == nil || !strings.Contains(err.Error(), "the bus is down") {
		t.Errorf("with neither: %v", err)
	}
}

// deadLog is a bus that cannot be reached.
type deadLog struct{ bus.Log }

func (deadLog) Follow(context.Context, string, bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) { yield(bus.Update{}, errors.New("the bus is down")) }
}

// TestAReplacedLog gives the replica another log under its feet, with older
// and with newer entries.
func TestAReplacedLog(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.Snapshot = t.TempDir()
	want := w.publish(id1, 7, "a.example")
	_ = w.open(c).Close()

	w.log, w.at = membus.New(), make(map[string]bus.Position)
	w.publish(id1, 6, "a.example")
	other := w.publish(id2, 1, "b.example")
	c.Log = w.log
	r := w.open(c)
	<-r.CaughtUp()
	wantServed(t, r, "a.example", want)
	wantServed(t, r, "b.example", other)
	if r.Status().Refused[replica.RefusedReplay] != 1 {
		t.Error(r.Status())
	}
}

// TestWhatCouldNotBeAppliedIsTriedAfterARestart: a signer that was not pinned
// yet, a key that was not there yet.
func TestWhatCouldNotBeAppliedIsTriedAfterARestart(t *testing.T) {
	w := newWorld(t)
	second, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	newKey, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c := w.config()
	c.Snapshot = t.TempDir()
	old := w.publish(id1, 1, "a.example")
	r := w.open(c)

	bySecond := w.certificate(id1, event.Version{Epoch: 1, Generation: 2}, w.groupKey.Public(), "a.example")
	data, err := event.Sign(second, "default", time.Now(), bySecond)
	if err != nil {
		t.Fatal(err)
	}
	w.put(event.CertificateKey("default", id1), data)
	toNewKey := w.certificate(id2, event.Version{Epoch: 1, Generation: 1}, newKey.Public(), "b.example")
	w.put(event.CertificateKey("default", id2), w.sign(toNewKey))
	w.sync(r)
	wantServed(t, r, "a.example", old)
	_ = r.Close()

	c.Managers = append(c.Managers, second.Public())
	c.Keys = append([]*seal.PrivateKey{newKey}, c.Keys...)
	r = w.open(c)
	<-r.CaughtUp()
	for name, cert := range map[string]*event.Certificate{"a.example": bySecond, "b.example": toNewKey} {
		leaf, _ := x509.ParseCertificate(cert.Chain[0])
		wantServed(t, r, name, leaf)
	}
	_ = r.Close()

	// And now nothing is left to be tried again.
	r = w.open(c)
	<-r.CaughtUp()
	if s := r.Status(); s.Applied != 0 || len(s.Refused) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOneReplicaPerSnapshot(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.Snapshot = t.TempDir()
	r := w.open(c)
	if _, err := replica.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.Snapshot) {
		t.Errorf("a second one: %v", err)
	}
	_ = r.Close()
	_ = w.open(c)
}

func TestSnapshotFilesArePrivateFewAndWithoutPlainKeys(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.Snapshot = t.TempDir()
	r := w.open(c)
	var last *x509.Certificate
	for g := range uint64(40) {
		last = w.publish(id1, g+1, "a.example", strings.Repeat("a", 60)+".example")
		for range 15 { // a position that moves for nothing
			w.put("group/default/"+id2, []byte(event.NewID()+strings.Repeat("x", 100)))
		}
		w.sync(r)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cert, err := r.Store().GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	_ = filepath.WalkDir(c.Snapshot, func(path string, d fs.DirEntry, _ error) error {
		if d.IsDir() {
			return nil
		}
		fi, _ := d.Info()
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		b, _ := os.ReadFile(path)
		if bytes.Contains(b, plain[len(plain)-100:]) {
			t.Errorf("%s holds a plain private key", path)
		}
		if strings.HasSuffix(path, ".ktj") {
			files++
		}
		return nil
	})
	if files == 0 || files > 3 {
		t.Errorf("%d snapshot files", files)
	}
	c.Log = nil
	wantServed(t, w.open(c), "a.example", last)
}

func TestOpenNeedsKeys(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for what, c := range map[string]replica.Config{
		"nothing":     {},
		"no managers": {Keys: w.config().Keys},
		"no keys":     {Managers: w.config().Managers},
		"empty dir":   {Dir: dir},
		"a bad group": {Managers: w.config().Managers, Keys: w.config().Keys, Group: "../etc"},
		"no bus":      {Managers: w.config().Managers, Keys: w.config().Keys, Snapshot: dir},
	} {
		if r, err := replica.Open(t.Context(), c); err == nil {
			_ = r.Close()
			t.Errorf("%s: opened", what)
		}
	}
}

func TestOpenTakesAJoinedDirectory(t *testing.T) {
	w := newWorld(t)
	want := w.publish(id1, 1, "a.example")
	dir := t.TempDir()
	if err := seal.WriteVerifyKeyFile(filepath.Join(dir, replica.ManagersFile), w.signer.Public()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "groups"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := seal.CreatePrivateKeyFile(replica.KeyFile(dir, "default"), w.groupKey); err != nil {
		t.Fatal(err)
	}
	r := w.open(replica.Config{Dir: dir, Log: w.log, Logger: slog.New(slog.DiscardHandler)})
	wantServed(t, r, "a.example", want)
}

// TestNotYetValid gives a replica whose clock is slow a certificate of the
// future: it waits, and serves the old one meanwhile.
func TestNotYetValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.publish(id1, 1, "a.example")
		r := w.open(w.config())
		next := w.ahead(5*time.Minute, id1, 2, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", old)
		time.Sleep(4 * time.Minute)
		wantServed(t, r, "a.example", old)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantServed(t, r, "a.example", next)
		_ = r.Close()

		// A restart while one waits forgets nothing.
		c := w.config()
		c.Snapshot = t.TempDir()
		r = w.open(c)
		third := w.ahead(5*time.Minute, id1, 3, "a.example")
		synctest.Wait()
		_ = r.Close()
		r = w.open(c)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		wantServed(t, r, "a.example", third)
		_ = r.Close()
	})
}
