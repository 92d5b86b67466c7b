// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/seal"
)

// A fixture is a replica on a snapshot directory, without a bus, that is handed
// entries.
type fixture struct {
	*Replica
	dir       string
	signer    *seal.SigningKey
	published [][]byte // the leaves, by generation from 1
	keys      [][]byte // their private keys
}

const fixtureID = "AAAAAAAAAAA"

func newFixture(t testing.TB) *fixture {
	t.Helper()
	signer, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{dir: t.TempDir(), signer: signer}
	f.Replica = f.open(t, f.dir, []*seal.VerifyKey{signer.Public()}, []*seal.PrivateKey{key})
	return f
}

func (f *fixture) open(t testing.TB, dir string, managers []*seal.VerifyKey, keys []*seal.PrivateKey) *Replica {
	t.Helper()
	r := &Replica{
		group: DefaultGroup, tenant: DefaultTenant, keys: keys, stored: keys,
		logger:  slog.New(slog.DiscardHandler),
		started: time.Now(), caughtUp: make(chan struct{}), stop: func() {},
		held: make(map[string]*held), pending: make(map[string]pending), logged: make(map[string]bool),
	}
	r.managers.Store(&managers)
	r.store = new(keyturn.Store)
	if _, err := r.restore(dir); err != nil {
		t.Fatal(err)
	}
	r.status.Following = true
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// publish hands the next generation to the replica.
func (f *fixture) publish(t testing.TB, ca *localca.CA) {
	t.Helper()
	e := f.next(t, ca)
	f.take(update{Update: bus.Update{Entry: e}})
	if v := f.Version(fixtureID); v.Generation != e.Position.Seq {
		t.Fatalf("generation %d was not applied: %+v", e.Position.Seq, f.Status())
	}
}

// next makes the entry of the next generation.
func (f *fixture) next(t testing.TB, ca *localca.CA) bus.Entry {
	t.Helper()
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(key, []string{"a.example"})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Issue(t.Context(), csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(len(f.published) + 1)
	c := &event.Certificate{
		Group: DefaultGroup, ID: fixtureID, Version: event.Version{Epoch: 1, Generation: n}, Names: []string{"a.example"},
		Chain: chain[:1], NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Algorithm: "ECDSA",
	}
	if err := c.SealKey(DefaultTenant, f.Replica.keys[0].Public(), pkcs8); err != nil {
		t.Fatal(err)
	}
	data, err := event.Sign(f.signer, DefaultTenant, time.Now(), c)
	if err != nil {
		t.Fatal(err)
	}
	f.published = append(f.published, leaf.Raw)
	f.keys = append(f.keys, pkcs8)
	return bus.Entry{Key: event.CertificateKey(DefaultGroup, fixtureID), Data: data, Position: bus.Position{Log: "l", Seq: n}}
}

func newCA(t testing.TB) *localca.CA {
	t.Helper()
	ca, err := localca.New(localca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func (f *fixture) newestFile(t testing.TB) string {
	t.Helper()
	files, err := journalFiles(f.dir)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return filepath.Join(f.dir, fileName(files[len(files)-1]))
}

// reopen opens a snapshot and wants that what is served is one of the published
// pairs, with the position that belongs to it; 0 is none.
func (f *fixture) reopen(t testing.TB, dir string) uint64 {
	t.Helper()
	return f.reopenBy(t, dir, f.Replica.keys)
}

func (f *fixture) reopenBy(t testing.TB, dir string, keys []*seal.PrivateKey) uint64 {
	t.Helper()
	r := f.open(t, dir, *f.managers.Load(), keys)
	defer func() { _ = r.Close() }()
	generation := r.Version(fixtureID).Generation
	if r.position.Seq > generation {
		t.Fatalf("the position is %v, and what is held is generation %d", r.position, generation)
	}
	cert, ok := r.store.Get(fixtureID)
	if !ok {
		if generation != 0 {
			t.Fatalf("generation %d is held and not served", generation)
		}
		return 0
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if generation == 0 || !bytes.Equal(cert.Certificate[0], f.published[generation-1]) || !bytes.Equal(key, f.keys[generation-1]) {
		t.Fatalf("generation %d is held, and the pair served is not its", generation)
	}
	return generation
}

// TestEveryDamage cuts the snapshot at every byte and flips a bit in every
// byte: what is served then is an older pair, whole, or none.
func TestEveryDamage(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	for range 2 {
		f.publish(t, ca)
	}
	path := f.newestFile(t)
	_ = f.Close()
	if g := f.reopen(t, f.dir); g != 2 {
		t.Fatal("undamaged, the snapshot has generation", g)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Each damaged file stands alone in a directory of its own.
	dir := t.TempDir()
	damaged := filepath.Join(dir, filepath.Base(path))
	var seen [3]int
	try := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		seen[f.reopen(t, dir)]++
	}
	for i := range whole {
		try(whole[:i])
		flipped := slices.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		try(flipped)
	}
	if seen[0] == 0 || seen[1] == 0 || seen[2] != 0 {
		t.Errorf("generations none, 1, 2 were found %v times", seen)
	}
}

// TestTamperedBytes changes each byte of an event: nothing of it is applied,
// and the true one afterwards is.
func TestTamperedBytes(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	f.publish(t, ca)
	e := f.next(t, ca)
	for i := range e.Data {
		bad := e
		bad.Data = slices.Clone(e.Data)
		bad.Data[i] ^= 1 << (i % 8)
		f.take(update{Update: bus.Update{Entry: bad}})
	}
	refused := uint64(0)
	for _, n := range f.Status().Refused {
		refused += n
	}
	if v := f.Version(fixtureID); v.Generation != 1 || refused != uint64(len(e.Data)) {
		t.Fatalf("version %s, %d of %d refused", v, refused, len(e.Data))
	}
	f.take(update{Update: bus.Update{Entry: e}})
	if v := f.Version(fixtureID); v.Generation != 2 {
		t.Fatal("the true event was not applied:", v)
	}
}

// TestDamagedNewestFileFallsBack damages the newest of three files: the older
// ones stand in, and the next event writes a good one.
func TestDamagedNewestFileFallsBack(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	f.publish(t, ca)
	f.publish(t, ca)
	if err := f.snapshot.compact("", nil); err != nil {
		t.Fatal(err)
	}
	f.publish(t, ca)
	path := f.newestFile(t)
	_ = f.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "its start": whole[:100], "its base cut": whole[:len(whole)/4], "junk": bytes.Repeat([]byte("x"), 5000)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if g := f.reopen(t, f.dir); g != 2 {
			t.Errorf("%s: fell back to generation %d", name, g)
		}
	}
	f.Replica = f.open(t, f.dir, *f.managers.Load(), f.Replica.keys)
	f.published, f.keys = f.published[:2], f.keys[:2]
	f.publish(t, ca)
	_ = f.Close()
	if g := f.reopen(t, f.dir); g != 3 {
		t.Errorf("after the repair: generation %d", g)
	}
}

// TestRecordsCannotBeReordered swaps and repeats whole records, which are each
// authentic.
func TestRecordsCannotBeReordered(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	for range 3 {
		f.publish(t, ca)
	}
	path := f.newestFile(t)
	_ = f.Close()
	b, _ := os.ReadFile(path)
	c, err := decodeJournal(f.Replica.keys, DefaultTenant, DefaultGroup, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var ends []int
	for i := range int(c.records) {
		ends = append(ends, recordEnd(b, i))
	}
	n := len(ends)
	last, before := b[ends[n-2]:ends[n-1]], b[ends[n-3]:ends[n-2]]
	for what, bad := range map[string][]byte{
		"left out": slices.Concat(b[:ends[n-3]], last),
		"swapped":  slices.Concat(b[:ends[n-3]], last, before),
		"repeated": slices.Concat(b[:ends[n-2]], before, last),
	} {
		got, err := decodeJournal(f.Replica.keys, DefaultTenant, DefaultGroup, bytes.NewReader(bad))
		if err != nil || got.clean || got.records > uint64(n-1) {
			t.Errorf("%s: %d records of %d are good, clean %t, %v", what, got.records, n, got.clean, err)
		}
	}
}

// recordEnd is where record i of a journal ends.
func recordEnd(b []byte, i int) int {
	at := headSize
	for ; i >= 0; i-- {
		at += 4 + int(b[at])<<24 + int(b[at+1])<<16 + int(b[at+2])<<8 + int(b[at+3])
	}
	return at
}

// TestAFailedWriteIsMadeUpFor lets a write fail: serving goes on, it is
// counted, and the next event writes everything anew.
func TestAFailedWriteIsMadeUpFor(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	f.publish(t, ca)
	_ = f.snapshot.journal.file.Close() // every write fails from now on
	f.publish(t, ca)
	if n := f.Status().SnapshotErrors; n != 1 {
		t.Fatal("failed writes:", n)
	}
	f.publish(t, ca)
	_ = f.Close()
	if g := f.reopen(t, f.dir); g != 3 {
		t.Fatal("generation", g)
	}
}

// TestAFailedCompactionIsMadeUpFor lets the new file fail while the old one
// could still be written: no position may pass what no file holds.
func TestAFailedCompactionIsMadeUpFor(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	f.publish(t, ca)
	f.snapshot.journal.size = 1 << 40 // the next write compacts
	blocked := filepath.Join(f.dir, fileName(f.snapshot.newest+1)+".tmp")
	if err := os.Mkdir(blocked, 0o700); err != nil { // where the new file would be written
		t.Fatal(err)
	}
	f.publish(t, ca)
	f.snapshot.journal.size = 0
	f.take(update{Update: bus.Update{Entry: bus.Entry{Position: bus.Position{Log: "l", Seq: 2}}, CaughtUp: true}})
	if n := f.Status().SnapshotErrors; n != 2 {
		t.Fatal("failed writes:", n)
	}
	crashed := f.Replica
	_ = crashed.Close()
	if g := f.reopen(t, f.dir); g != 1 {
		t.Fatal("generation", g)
	}
	f.Replica = f.open(t, f.dir, *f.managers.Load(), f.Replica.keys)
	if f.position.Seq > 1 {
		t.Fatal("the position passes what is held:", f.position)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	f.published, f.keys = f.published[:1], f.keys[:1]
	f.publish(t, ca)
	_ = f.Close()
	if g := f.reopen(t, f.dir); g != 2 {
		t.Fatal("generation", g)
	}
}

// TestAPositionCannotForgeRecords: the position's text is the bus's word, and
// one whose length overflows its field would become the record's event.
func TestAPositionCannotForgeRecords(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t)
	f.publish(t, ca)
	for _, log := range []string{strings.Repeat("A", 1<<16), strings.Repeat("A", maxPosition), ""} {
		if err := checkPosition(bus.Position{Log: log, Seq: 1}); err == nil {
			t.Errorf("a log id of %d bytes is taken", len(log))
		}
		if _, err := encodeRecord(f.snapshot.journal.segment.aead, 1, recordEntry, bus.Position{Log: log, Seq: 1}, nil); err == nil {
			t.Errorf("a log id of %d bytes is written", len(log))
		}
	}
}

// TestAnotherGroupsSnapshot cannot be opened, and is not in the way.
func TestAnotherGroupsSnapshot(t *testing.T) {
	f := newFixture(t)
	f.publish(t, newCA(t))
	_ = f.Close()
	stranger, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	r := f.open(t, f.dir, *f.managers.Load(), []*seal.PrivateKey{stranger})
	if len(r.held) != 0 || !r.position.IsZero() {
		t.Error("something of it was taken")
	}
}

func FuzzSnapshot(fz *testing.F) {
	f := newFixture(fz)
	ca := newCA(fz)
	f.publish(fz, ca)
	f.publish(fz, ca)
	whole, err := os.ReadFile(f.newestFile(fz))
	if err != nil {
		fz.Fatal(err)
	}
	fz.Add(whole[recordEnd(whole, 0):])
	fz.Add([]byte{0, 0, 0, 40, 1, 2, 3})
	head := whole[:recordEnd(whole, -1)]
	fz.Fuzz(func(t *testing.T, rest []byte) {
		c, err := decodeJournal(f.Replica.keys, DefaultTenant, DefaultGroup, bytes.NewReader(slices.Concat(head, rest)))
		if err != nil {
			t.Fatal(err)
		}
		for r := range c.all() {
			if r.held == nil {
				continue
			}
			data, err := r.held.text.Load().read()
			if err != nil || !bytes.Contains(whole, data) {
				t.Fatal("forged:", err)
			}
		}
	})
}

// TestCompactsWhatIsSuperseded has a file grow by what takes the place of something, and
// by what does not: only the former makes a new file.
func TestCompactsWhatIsSuperseded(t *testing.T) {
	f, ca := newFixture(t), newCA(t)
	f.publish(t, ca)
	entry := f.next(t, ca)
	first := f.snapshot.newest
	grow := func(another bool) {
		t.Helper()
		for n := 0; n < 4*compactAt && f.snapshot.newest == first; n += len(entry.Data) {
			id := fixtureID
			if another {
				id = event.NewID()
			}
			h := newHeld(event.Version{Epoch: 1, Generation: 1}, entry.Data)
			if err := f.snapshot.add(id, h, false); err != nil {
				t.Fatal(err)
			}
			f.held[id] = h
		}
	}
	grow(true)
	if f.snapshot.newest != first {
		t.Fatal("a new file was made, though all that the old one has is held")
	}
	_ = f.Close()
	f.Replica = f.open(t, f.dir, *f.managers.Load(), f.Replica.keys)
	f.snapshot.journal.size = 2*f.snapshot.journal.live + compactAt // about to be compacted
	if f.snapshot.full() {
		t.Fatal("it is full too soon")
	}
	grow(false)
	if f.snapshot.newest != first+1 {
		t.Error("no new file was made, though the old one has much that is not held")
	}
}
