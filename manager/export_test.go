// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// contents are all entries of a log that an archive can have, by key.
func contents(t testing.TB, log bus.Log) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, scope := range archivedScopes {
		for u, err := range log.Follow(context.Background(), scope, bus.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if u.CaughtUp {
				break
			}
			all[u.Key] = string(u.Data)
		}
	}
	return all
}

func sameContents(t testing.TB, got, want map[string]string) {
	t.Helper()
	for key, data := range want {
		if got[key] != data {
			t.Errorf("%s: %d bytes; want %d others", key, len(got[key]), len(data))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries; want %d", len(got), len(want))
	}
}

func exportLog(t testing.TB, m *Manager) ([]byte, *Exported) {
	t.Helper()
	var file bytes.Buffer
	e, err := m.ExportLog(context.Background(), &file)
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), e
}

// aMove is a fleet with a bit of everything, and another bus for it.
func aMove(t *testing.T) (f *fleet, m *Manager, to *membus.Log, moved *Manager) {
	f, m = newReportingFleet(t)
	make1(t, m, "a.example")
	gone := make1(t, m, "b.example")
	if err := m.Remove(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	renew(t, m, make1(t, m, "c.example").ID)
	if _, err := addSecond(t, m); err != nil {
		t.Fatal(err)
	}
	to = membus.New()
	other := *f
	other.log = to
	return f, m, to, other.manager(t, "")
}

// TestALogMoves exports a log and imports it into another: there stands what
// stood here, byte by byte, and managers go on with it.
func TestALogMoves(t *testing.T) {
	f, m, to, moved := aMove(t)
	file, e := exportLog(t, m)
	want := contents(t, f.log)
	if e.Entries != uint64(len(want)) || e.LeftOut != 0 || e.Size != int64(len(file)) || e.Epoch != 1 || e.Tenant != DefaultTenant {
		t.Errorf("%+v; want %d entries", e, len(want))
	}
	done, err := moved.ImportLog(t.Context(), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if done.Written != len(want) || done.Present != 0 || done.Certificates != 2 || done.Removed != 1 {
		t.Errorf("%+v", done)
	}
	sameContents(t, contents(t, to), want)
	if err := moved.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := moved.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%d certificates, %v", len(list), err)
	}
	for _, c := range list {
		if next := renew(t, moved, c.ID); next.Generation != c.Generation+1 || next.Epoch != c.Epoch {
			t.Errorf("%v follows %v", next.Version, c.Version)
		}
	}
}

// TestAnImportThatWasCutShort goes on, and does nothing twice.
func TestAnImportThatWasCutShort(t *testing.T) {
	f, m, to, moved := aMove(t)
	file, _ := exportLog(t, m)
	want := contents(t, f.log)
	var done *ImportedLog
	for rounds := 0; ; rounds++ {
		dying := &dyingLog{Log: to}
		dying.left.Store(2)
		moved.log = dying
		var err error
		if done, err = moved.ImportLog(t.Context(), bytes.NewReader(file)); err == nil {
			if rounds == 0 {
				t.Error("nothing was cut short")
			}
			break
		}
		if !errors.Is(err, errDied) || rounds > 100*len(want) {
			t.Fatal(err)
		}
	}
	if done.Present+done.Written != len(want) || done.Written > 2 {
		t.Errorf("%d were there, and %d written; want %d", done.Present, done.Written, len(want))
	}
	sameContents(t, contents(t, to), want)
	if done, err := moved.ImportLog(t.Context(), bytes.NewReader(file)); err != nil || done.Present != len(want) || done.Written != 0 {
		t.Errorf("once more: %+v, %v", done, err)
	}
}

// A dyingLog takes so many more entries.
type dyingLog struct {
	bus.Log
	left atomic.Int64
}

var errDied = errors.New("the importer was killed")

func (l *dyingLog) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if l.left.Add(-1) < 0 {
		return bus.Position{}, errDied
	}
	return l.Log.Append(ctx, key, after, data)
}

// TestALogInUseIsNotImportedInto: neither one that somebody else uses, nor one that
// went on after the import.
func TestALogInUseIsNotImportedInto(t *testing.T) {
	_, m, to, moved := aMove(t)
	file, _ := exportLog(t, m)
	other := &fleet{log: to, identity: m.identity}
	stranger := other.manager(t, "")
	if err := stranger.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := contents(t, to)
	var full *NotEmptyError
	if _, err := moved.ImportLog(t.Context(), bytes.NewReader(file)); !errors.As(err, &full) || full.N != len(before) {
		t.Errorf("%v; want a refusal for %d entries", err, len(before))
	}
	sameContents(t, contents(t, to), before)
}

// TestOnlyWhatIsVerifiedIsImported damages the file at many places: nothing of it
// is written.
func TestOnlyWhatIsVerifiedIsImported(t *testing.T) {
	_, m, to, moved := aMove(t)
	file, _ := exportLog(t, m)
	for i := 0; i < len(file); i += 97 {
		bad := bytes.Clone(file)
		bad[i] ^= 4
		if _, err := moved.ImportLog(t.Context(), bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d was changed, and it was imported", i)
		}
	}
	if got := contents(t, to); len(got) > 0 {
		t.Errorf("%d entries were written", len(got))
	}
	elsewhere, err := New(Config{Log: to, Identity: m.identity, Tenant: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.ImportLog(t.Context(), bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), `tenant "default"'s`) {
		t.Errorf("another tenant's: %v", err)
	}
}

// TestForgedEntriesAreNotExported: what a stranger put on the bus is left out, and
// counted.
func TestForgedEntriesAreNotExported(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	stranger, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := event.Sign(stranger, DefaultTenant, c.Issued, &event.LogInfo{Epoch: 9})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"conf/else", event.StateKey("AAAAAAAAAAA")} {
		if _, err := f.log.Append(t.Context(), key, bus.Position{}, forged); err != nil {
			t.Fatal(err)
		}
	}
	file, e := exportLog(t, m)
	if e.LeftOut != 2 {
		t.Errorf("%d were left out; want 2", e.LeftOut)
	}
	if _, err := archive.Verify(bytes.NewReader(file), []*seal.VerifyKey{m.identity.Signing.Public()}); err != nil {
		t.Error(err)
	}
}

// TestManagersThatChangeEndAnExport: it could not be believed as a whole.
func TestManagersThatChangeEndAnExport(t *testing.T) {
	f, m := newFleet(t)
	make1(t, m, "a.example")
	changing := f.manager(t, "")
	changing.progress = func(_, what string) {
		if strings.HasPrefix(what, "state:") {
			if _, err := addSecond(t, m); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := changing.ExportLog(t.Context(), io.Discard); !errors.Is(err, errManagersChanged) {
		t.Error(err)
	}
}

// addSecond adds a second manager.
func addSecond(t *testing.T, m *Manager) (*seal.SigningKey, error) {
	k, err := seal.GenerateSigningKey()
	if err != nil {
		return nil, err
	}
	return k, m.AddSigner(t.Context(), "second", k.Public(), "")
}
