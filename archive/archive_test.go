// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

func newKey(t testing.TB) *seal.SigningKey {
	t.Helper()
	k, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var head = archive.Head{Tenant: "default", Log: "LOG", Epoch: 3, Time: time.Unix(1700000000, 0).UTC(), Manager: "one"}

// write makes an archive of these entries, sealed at its end.
func write(t testing.TB, by *seal.SigningKey, entries ...bus.Entry) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := archive.NewWriter(&file, by, head)
	for _, e := range entries {
		if err == nil {
			err = w.Add(e)
		}
	}
	if err == nil {
		err = w.Seal()
	}
	if err != nil {
		t.Fatal(err)
	}
	if w.Entries() != uint64(len(entries)) || w.Size() != int64(file.Len()) {
		t.Fatalf("%d entries, %d bytes; want %d and %d", w.Entries(), w.Size(), len(entries), file.Len())
	}
	return file.Bytes()
}

// read reads an archive to its end, or to the first error.
func read(file []byte) (entries []bus.Entry, r *archive.Reader, err error) {
	if r, err = archive.NewReader(bytes.NewReader(file)); err != nil {
		return nil, nil, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries, r, nil
		}
		if err != nil {
			return entries, r, err
		}
		e.Data = bytes.Clone(e.Data)
		entries = append(entries, e)
	}
}

func entry(i int) bus.Entry {
	return bus.Entry{Key: fmt.Sprintf("state/%d", i), Data: bytes.Repeat([]byte{byte(i)}, i), Position: bus.Position{Log: "LOG", Seq: uint64(i)}}
}

func TestRoundTrip(t *testing.T) {
	k := newKey(t)
	want := []bus.Entry{entry(1), entry(0), entry(300), {Key: strings.Repeat("k", bus.MaxKey), Data: make([]byte, bus.MaxData), Position: bus.Position{Log: "OTHER", Seq: 1 << 63}}}
	got, r, err := read(write(t, k, want...))
	if err != nil || len(got) != len(want) || r.Head() != head {
		t.Fatalf("%d entries of %d, %+v, %v", len(got), len(want), r.Head(), err)
	}
	for i := range want {
		if got[i].Key != want[i].Key || got[i].Position != want[i].Position || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("entry %d is another one", i)
		}
	}
	if id, err := r.Sealed().Check([]*seal.VerifyKey{newKey(t).Public(), k.Public()}); err != nil || id != k.Public().ID() {
		t.Error(id, err)
	}
	if _, err := r.Sealed().Check([]*seal.VerifyKey{newKey(t).Public()}); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Error(err)
	}
}

// TestWriterRefuses what could not be read back.
func TestWriterRefuses(t *testing.T) {
	w, err := archive.NewWriter(io.Discard, newKey(t), head)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []bus.Entry{
		{Key: "no key", Data: []byte("x")},
		{Key: "state/a", Data: make([]byte, bus.MaxData+1)},
		{Key: "state/a", Position: bus.Position{Log: strings.Repeat("L", 300), Seq: 1}},
	} {
		if err := w.Add(e); err == nil {
			t.Errorf("%.40q is taken", e.Key)
		}
	}
	long := head
	long.Manager = strings.Repeat("m", 5000)
	if _, err := archive.NewWriter(io.Discard, newKey(t), long); err == nil {
		t.Error("a head is taken that is not read back")
	}
}

// TestEveryCutIsNoticed cuts an archive at every byte: what is left is never taken
// for whole.
func TestEveryCutIsNoticed(t *testing.T) {
	file := write(t, newKey(t), entry(3), entry(4))
	for n := range len(file) {
		if _, r, err := read(file[:n]); err == nil {
			t.Fatalf("%d of %d bytes pass for whole: %+v", n, len(file), r.Sealed())
		}
	}
}

// TestEveryFlippedBitIsNoticed turns each bit of an archive: by the reader itself,
// or by the seal's signature.
func TestEveryFlippedBitIsNoticed(t *testing.T) {
	k := newKey(t)
	file := write(t, k, entry(3), entry(4))
	for n := range 8 * len(file) {
		bad := bytes.Clone(file)
		bad[n/8] ^= 1 << (n % 8)
		_, r, err := read(bad)
		if err == nil {
			_, err = r.Sealed().Check([]*seal.VerifyKey{k.Public()})
		}
		if err == nil {
			t.Fatalf("bit %d of byte %d was turned, and nobody has noticed", n%8, n/8)
		}
	}
}

// TestResume goes on with an archive after its last good seal: what came after that
// is gone, and what is written then is whole.
func TestResume(t *testing.T) {
	k := newKey(t)
	file := write(t, k, entry(1), entry(2))
	whole := len(file)
	torn := append(bytes.Clone(file), file[:100]...)
	_, r, err := read(torn)
	if err == nil {
		t.Fatal("what follows the seal passes for a record")
	}
	last := r.Sealed()
	if last.Offset != int64(whole) || last.Entries != 2 {
		t.Fatalf("%+v; want %d bytes", last, whole)
	}
	more := bytes.NewBuffer(bytes.Clone(torn[:last.Offset]))
	w := last.Resume(more, k)
	if err := w.Add(entry(5)); err != nil {
		t.Fatal(err)
	}
	if _, r, err := read(more.Bytes()); !errors.Is(err, archive.ErrCut) || r.Sealed().Entries != 2 {
		t.Errorf("without a seal: %v, %d entries are sealed", err, r.Sealed().Entries)
	}
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	got, r, err := read(more.Bytes())
	if err != nil || len(got) != 3 || r.Sealed().Offset != w.Size() {
		t.Errorf("%d entries, %v", len(got), err)
	}
	// What an earlier seal vouched for is vouched for by the last one alone.
	bad := more.Bytes()
	bad[whole-10] ^= 1 // in the signature of the first
	if _, _, err := read(bad); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("an earlier seal was changed: %v", err)
	}
}

func TestNotAnArchive(t *testing.T) {
	for _, text := range []string{"", "K", "KTLOG1\n\n", "KTLOG1\r\n", "KTLOG1\r\n\x00\x00\x00\x02H{", "KTSNAP1\nxxxxxxxxxxxx"} {
		if _, err := archive.NewReader(strings.NewReader(text)); !errors.Is(err, archive.ErrNotArchive) && !errors.Is(err, archive.ErrCut) {
			t.Errorf("%q: %v", text, err)
		}
	}
	broken := errors.New("the disk is gone")
	if _, err := archive.NewReader(io.MultiReader(strings.NewReader("KTL"), failing{broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzReader(f *testing.F) {
	k := newKey(f)
	file := write(f, k, entry(1), entry(20))
	f.Add(file)
	f.Add(file[:len(file)-5])
	for range 20 {
		bad := bytes.Clone(file)
		bad[rand.IntN(len(bad))]++
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, r, err := read(data)
		if err != nil {
			return
		}
		if r.Sealed().Offset != int64(len(data)) || r.Sealed().Entries != uint64(len(entries)) {
			t.Errorf("%d bytes and %d entries are read, and %+v is sealed", len(data), len(entries), r.Sealed())
		}
		for _, e := range entries {
			if err := bus.CheckAppend(e.Key, e.Data); err != nil {
				t.Error(err)
			}
		}
	})
}

// signed makes an entry of a body.
func signed(t testing.TB, by *seal.SigningKey, body event.Body) bus.Entry {
	t.Helper()
	data, err := event.Sign(by, "default", head.Time, body)
	if err != nil {
		t.Fatal(err)
	}
	return bus.Entry{Key: event.Key(body), Data: data, Position: bus.Position{Log: "LOG", Seq: 1}}
}
