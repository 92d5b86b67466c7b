// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/durable/powercut"
	"github.com/keyturn/keyturn/seal"
)

// in is a replica on dir that keeps the group's keys there, too.
func (f *fixture) in(t testing.TB, dir string) *fixture {
	t.Helper()
	keys, err := seal.ReadPrivateKeyFile(KeyFile(dir, DefaultGroup))
	if err != nil {
		t.Fatal(err)
	}
	in := *f
	in.Replica = f.open(t, dir, *f.managers.Load(), keys)
	in.Replica.dir, in.dir = dir, dir
	return &in
}

// cuts cuts the power at each moment of a recording. What was acknowledged must be
// served then, or what came after it, as a pair.
func (f *fixture) cuts(t *testing.T, r *powercut.Recording, before string) int {
	t.Helper()
	return r.Cuts(func(c powercut.Cut) {
		keys, err := seal.ReadPrivateKeyFile(KeyFile(c.Dir, DefaultGroup))
		if err != nil {
			t.Fatalf("%s%s: %v", before, c, err)
		}
		if g := f.reopenBy(t, c.Dir, keys); g < uint64(c.Acknowledged) {
			t.Fatalf("%s%s: generation %d is served", before, c, g)
		}
	})
}

// TestPowerCut cuts the power while a replica applies certificates, gets another key
// of its group, drops the former, and compacts its snapshot; and then while another
// process goes on with what one that was killed at each step of this has left.
func TestPowerCut(t *testing.T) {
	f, ca := newFixture(t), newCA(t)
	_ = f.Close()
	f.dir = powercut.Dir(t)
	if err := durable.MkdirAll(filepath.Join(f.dir, groupsDir)); err != nil {
		t.Fatal(err)
	}
	first := f.Replica.keys[0]
	if err := seal.CreatePrivateKeyFile(KeyFile(f.dir, DefaultGroup), first); err != nil {
		t.Fatal(err)
	}
	rec := powercut.Record(t, f.dir)
	f = f.in(t, f.dir)
	next := func(f *fixture, rec *powercut.Recorder) {
		t.Helper()
		f.publish(t, ca)
		rec.Acknowledge(len(f.published))
	}
	second, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	f.status.Following = false // the first comes during catch-up, sealed
	f.publish(t, ca)
	f.catchUp()
	rec.Acknowledge(len(f.published))
	for f.proveNext() {
	}
	next(f, rec)
	if err := f.grant([]*seal.PrivateKey{second, first}); err != nil {
		t.Fatal(err)
	}
	next(f, rec) // sealed to the second
	if err := f.grant([]*seal.PrivateKey{second}); err != nil {
		t.Fatal(err)
	}
	next(f, rec)
	f.snapshot.journal.size = 1 << 40 // the next compacts
	next(f, rec)
	next(f, rec)
	_ = f.Close()
	r := rec.Stop()
	states := f.cuts(t, r, "")

	r.Kills(func(k powercut.Kill) {
		rec := k.Record()
		f := f.in(t, k.Dir)
		if g := f.Version(fixtureID).Generation; g < uint64(k.Acknowledged) {
			t.Fatalf("killed after %s: generation %d is served", k.After, g)
		}
		next(f, rec)
		f.snapshot.journal.size = 1 << 40
		next(f, rec)
		_ = f.Close()
		states += f.cuts(t, rec.Stop(), "killed after "+k.After+", then ")
	})
	t.Logf("%d states", states)
}
