// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// snapshotting runs a manager that keeps a snapshot in dir, until it is stopped.
func (f *fleet) snapshotting(t testing.TB, dir string, to *lines) (m *Manager, stop func()) {
	t.Helper()
	c := Config{Log: f.log, Identity: f.identity, Snapshot: dir, Logger: slog.New(slog.NewTextHandler(to, nil)), Instance: "keeping"}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	return m, func() {
		cancel()
		run.Wait()
	}
}

// newest is the newest file of a snapshot.
func newest(t testing.TB, dir string) string {
	t.Helper()
	files, err := SnapshotFiles(dir)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files[len(files)-1]
}

// verified verifies a snapshot as anybody may.
func verified(t testing.TB, f *fleet, path string) *archive.Summary {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s, err := archive.Verify(file, []*seal.VerifyKey{f.identity.Signing.Public()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// restoredTo is what comes of a snapshot in an empty log.
func restoredTo(t testing.TB, f *fleet, files ...string) (map[string]string, *Restoration, bus.Log) {
	t.Helper()
	to := membus.New()
	other := *f
	other.log = to
	m := other.manager(t, "")
	return restoreAll(t, m, files...)
}

func restoreAll(t testing.TB, m *Manager, files ...string) (map[string]string, *Restoration, bus.Log) {
	t.Helper()
	r, err := m.PlanRestoration(context.Background(), files)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.RestoreLog(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	return contents(t, m.log), r, m.log
}

// TestASnapshotHasWhatTheLogHas within a minute of any change, over restarts, and a
// lost log is rebuilt from it to the byte, but for the epoch.
func TestASnapshotHasWhatTheLogHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		dir := filepath.Join(t.TempDir(), "snapshot")
		make1(t, m, "a.example")
		var log lines
		keeping, stop := f.snapshotting(t, dir, &log)
		same := func() {
			t.Helper()
			time.Sleep(time.Minute)
			want := contents(t, f.log)
			got, r, _ := restoredTo(t, f, newest(t, dir))
			if r.Epoch != 0 || r.NextEpoch != 2 || r.Lost != len(want)-1 || r.Older != 0 {
				t.Errorf("%+v; want %d", r, len(want)-1)
			}
			delete(got, event.LogInfoKey)
			delete(want, event.LogInfoKey)
			sameContents(t, got, want)
			verified(t, f, newest(t, dir))
			if s := keeping.Stats(); time.Since(s.Snapshot) > time.Minute || s.SnapshotFailed || s.SnapshotMissing != 0 {
				t.Errorf("%+v", s)
			}
		}
		same()
		c := make1(t, m, "b.example")
		same()
		for range 3 {
			renew(t, m, c.ID)
		}
		if err := m.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		same()
		stop()
		make1(t, m, "c.example")
		keeping, stop = f.snapshotting(t, dir, &log)
		same()
		stop()
		if files, err := SnapshotFiles(dir); err != nil || len(files) != 1 {
			t.Errorf("%v, %v: a snapshot that is whole is gone on with", files, err)
		}
		// What came at the very end is in it.
		keeping, stop = f.snapshotting(t, dir, &log)
		synctest.Wait()
		make1(t, m, "d.example")
		synctest.Wait()
		stop()
		if s := verified(t, f, newest(t, dir)); s.Certificates != 3 || s.Removed != 1 {
			t.Errorf("%+v", s)
		}
		if log.count("level=ERROR") > 0 {
			t.Error(log.String())
		}
		for _, path := range []string{dir, newest(t, dir)} {
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", path, fi.Mode(), err)
			}
		}
	})
}

// TestASnapshotForgetsNothing: a log that went back, or lost everything, takes
// nothing out of it, and is told of.
func TestASnapshotForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, m := newRewindableFleet(t)
		dir := filepath.Join(t.TempDir(), "snapshot")
		a := make1(t, m, "a.example")
		r.keep(t)
		a = renew(t, m, a.ID)
		b := make1(t, m, "b.example")
		var log lines
		_, stop := f.snapshotting(t, dir, &log)
		time.Sleep(time.Minute)
		stop()
		want := contents(t, f.log)

		r.rewind(t)
		m.readings.byKey = make(map[string]reading)
		keeping, stop := f.snapshotting(t, dir, &log)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := keeping.Stats().SnapshotMissing; n < 3 {
			t.Errorf("%d entries are missing; want b's three, and a's", n)
		}
		if log.count("the log has lost entries that the snapshot of this manager has") == 0 {
			t.Error("nobody was told")
		}
		stop()
		got, plan, _ := restoredTo(t, f, newest(t, dir))
		if plan.Certificates != 2 {
			t.Errorf("%+v", plan)
		}
		for _, key := range []string{event.StateKey(b.ID), event.CertificateKey(DefaultGroup, b.ID), event.CertificateKey(DefaultGroup, a.ID)} {
			if got[key] != want[key] {
				t.Errorf("%s was forgotten", key)
			}
		}

		// In place, under a manager that runs: all is as it was, in another epoch, and
		// nothing is missing any more.
		keeping, stop = f.snapshotting(t, dir, &log)
		defer stop()
		time.Sleep(time.Minute)
		there, _, _ := restoreAll(t, f.manager(t, ""), newest(t, dir))
		time.Sleep(time.Minute)
		if n := keeping.Stats().SnapshotMissing; n != 0 {
			t.Errorf("%d entries are missing still", n)
		}
		if there[event.CertificateKey(DefaultGroup, b.ID)] != want[event.CertificateKey(DefaultGroup, b.ID)] || epochOf(t, m) < 2 {
			t.Error("b is another one")
		}
		if plan, err := f.manager(t, "").PlanRestoration(t.Context(), []string{newest(t, dir)}); err != nil || plan.Needed() {
			t.Errorf("%+v, %v: nothing is left to restore", plan, err)
		}
	})
}

// TestDamagedSnapshots cuts the newest of several at every tenth byte, and flips a
// bit there: what it has lost, an older one has, and the manager goes on.
func TestDamagedSnapshots(t *testing.T) {
	synctest.Test(t, testDamagedSnapshots)
}

func testDamagedSnapshots(t *testing.T) {
	f, m := newFleet(t)
	good := filepath.Join(t.TempDir(), "snapshot")
	var log lines
	run := func(dir string) {
		_, stop := f.snapshotting(t, dir, &log)
		time.Sleep(time.Minute)
		stop()
	}
	make1(t, m, "a.example")
	run(good)
	c := make1(t, m, "b.example")
	renew(t, m, c.ID)
	run(good)
	want := contents(t, f.log)
	text, err := os.ReadFile(newest(t, good))
	if err != nil {
		t.Fatal(err)
	}
	older := func(dir string) string { return filepath.Join(dir, fmt.Sprintf(snapshotName, 1)) }
	newer := func(dir string) string { return filepath.Join(dir, fmt.Sprintf(snapshotName, 2)) }
	for at := 0; at < len(text); at += len(text)/40 + 1 {
		for _, damaged := range [][]byte{text[:at], flip(text, at)} {
			dir := filepath.Join(t.TempDir(), "snapshot")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for path, b := range map[string][]byte{older(dir): text, newer(dir): damaged} {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, _, _ := restoredTo(t, f, older(dir), newer(dir))
			got[event.LogInfoKey] = want[event.LogInfoKey]
			sameContents(t, got, want)
		}
	}
	// The manager writes a new one of what is good, and of what the log has.
	damaged := filepath.Join(t.TempDir(), "snapshot")
	if err := os.Mkdir(damaged, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(older(damaged), flip(text, len(text)/2), 0o600); err != nil {
		t.Fatal(err)
	}
	run(damaged)
	got, _, _ := restoredTo(t, f, newest(t, damaged))
	got[event.LogInfoKey] = want[event.LogInfoKey]
	sameContents(t, got, want)
	if newest(t, damaged) != newer(damaged) || log.count("older ones and the log stand in") == 0 {
		t.Errorf("%s\n%s", newest(t, damaged), log.String())
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// TestASnapshotIsRewritten when it has grown: three files are kept, and the newest
// has everything.
func TestASnapshotIsRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		dir := filepath.Join(t.TempDir(), "snapshot")
		c := make1(t, m, "a.example")
		var log lines
		keeping, stop := f.snapshotting(t, dir, &log)
		defer stop()
		for i := range 6 {
			time.Sleep(time.Minute)
			s := keeping.snapshots.Load()
			s.mu.Lock()
			s.base = -rewriteAt // as if it had grown
			s.mu.Unlock()
			renew(t, m, c.ID)
			time.Sleep(time.Minute)
			files, err := SnapshotFiles(dir)
			if err != nil || len(files) != min(i+2, keepSnapshots) {
				t.Errorf("%v, %v", files, err)
			}
			want := contents(t, f.log)
			got, _, _ := restoredTo(t, f, newest(t, dir))
			got[event.LogInfoKey] = want[event.LogInfoKey]
			sameContents(t, got, want)
			verified(t, f, newest(t, dir))
		}
		if log.count("level=ERROR") > 0 {
			t.Error(log.String())
		}
	})
}

// TestASnapshotThatCannotBeWritten is said, and mended by itself.
func TestASnapshotThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		dir := filepath.Join(t.TempDir(), "snapshot")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // where the directory should be
			t.Fatal(err)
		}
		make1(t, m, "a.example")
		var log lines
		keeping, stop := f.snapshotting(t, dir, &log)
		defer stop()
		time.Sleep(5 * time.Minute)
		if !keeping.Stats().SnapshotFailed || log.count("the snapshot of the log is not kept") != 1 {
			t.Errorf("%+v\n%s", keeping.Stats(), log.String())
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if keeping.Stats().SnapshotFailed {
			t.Error("it fails still")
		}
		want := contents(t, f.log)
		got, _, _ := restoredTo(t, f, newest(t, dir))
		got[event.LogInfoKey] = want[event.LogInfoKey]
		sameContents(t, got, want)
	})
}

// TestNothingToRestoreFrom says why.
func TestNothingToRestoreFrom(t *testing.T) {
	f, m := newFleet(t)
	_ = f
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("what?"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := m.PlanRestoration(t.Context(), []string{text})
	if err == nil || !strings.Contains(err.Error(), "there is nothing to restore from") || !strings.Contains(err.Error(), "not an archive") {
		t.Error(err)
	}
}
