// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// A line is the list of managers, as managers keep it.
type line struct {
	f      *fleet
	serial uint64
	chain  event.ManagerChain
}

// set makes keys those of all managers from now on, signed by one from before.
func (l *line) set(by *seal.SigningKey, keys ...*seal.SigningKey) {
	l.f.t.Helper()
	l.serial++
	s := &event.ManagerSet{Serial: l.serial}
	for _, k := range keys {
		s.Keys = append(s.Keys, event.ManagerKey{Name: "m", Key: k.Public().Bytes(), Added: time.Now()})
	}
	if err := l.chain.Add(by, "default", time.Now(), s); err != nil {
		l.f.t.Fatal(err)
	}
	l.put(by)
}

// put puts the list, signed by a manager.
func (l *line) put(by *seal.SigningKey) {
	l.f.t.Helper()
	data, err := event.Sign(by, "default", time.Now(), &l.chain)
	if err != nil {
		l.f.t.Fatal(err)
	}
	l.f.put(event.ManagersKey, data)
}

func signingKey(t testing.TB) *seal.SigningKey {
	t.Helper()
	k, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func wantPinned(t testing.TB, dir string, want ...*seal.SigningKey) {
	t.Helper()
	keys, err := seal.ReadVerifyKeyFile(filepath.Join(dir, replica.ManagersFile))
	if err != nil || !slices.EqualFunc(keys, want, func(v *seal.VerifyKey, k *seal.SigningKey) bool { return v.Equal(k.Public()) }) {
		t.Fatalf("%d keys are pinned, not %d: %v", len(keys), len(want), err)
	}
}

func TestManagersAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.signer, signingKey(t)
		l := &line{f: f}
		l.set(a, a)
		f.publish(id1, 1, "a.example")
		dir, _ := f.joined()
		r := f.open(inDir(dir))
		synctest.Wait()

		// What a new one signs may come before the list that has it.
		f.signer = b
		second := f.publish(id1, 2, "a.example")
		synctest.Wait()
		if s := r.Status(); s.Refused[replica.RefusedSigner] != 1 {
			t.Fatalf("%+v", s)
		}
		l.set(a, a, b)
		synctest.Wait()
		wantServed(t, r, "a.example", second)
		wantPinned(t, dir, a, b)

		// One is revoked: the other signs what stands there, and the list.
		l.set(b, b)
		synctest.Wait()
		wantPinned(t, dir, b)
		f.signer = a
		f.publish(id1, 3, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", second)
		if s := r.Status(); s.Refused[replica.RefusedSigner] != 2 {
			t.Errorf("%+v", s)
		}
		f.signer = b
		f.beacon()
		synctest.Wait()
		if r.Status().Beacon.IsZero() {
			t.Error("a new manager's beacon is not taken")
		}
	})
}

func TestManagersThatChangedWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		keys := []*seal.SigningKey{f.signer, signingKey(t), signingKey(t), signingKey(t)}
		l := &line{f: f}
		l.set(keys[0], keys[0])
		f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(filepath.Join(dir, replica.ManagersFile))
		if err != nil {
			t.Fatal(err)
		}

		for i := range 3 {
			l.set(keys[i], keys[i], keys[i+1])
			l.set(keys[i+1], keys[i+1])
		}
		f.signer = keys[3]
		k2 := groupKey(t)
		f.member(m, k2, f.groupKey)
		second := f.publishTo(k2, id1, 2, "a.example")
		r = f.open(inDir(dir))
		synctest.Wait()
		wantServed(t, r, "a.example", second)
		wantPinned(t, dir, keys[3])
		wantKeys(t, r, dir, k2, f.groupKey)

		// A crash between the two files leaves the older one behind.
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, replica.ManagersFile), before, 0o600); err != nil {
			t.Fatal(err)
		}
		// And an older list, signed by those who were trusted then, is refused.
		old := &line{f: f}
		old.set(keys[0], keys[0])
		r = f.open(inDir(dir))
		third := f.publishTo(k2, id1, 3, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", third)
		f.signer = keys[0]
		f.publishTo(k2, id1, 4, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", third)
		wantPinned(t, dir, keys[3])
		old = &line{f: f}
		old.set(keys[3], keys[3], keys[0])
		synctest.Wait()
		if s := r.Status(); s.Refused[replica.RefusedReplay] != 1 || s.Refused[replica.RefusedSigner] != 2 {
			t.Errorf("%+v", s)
		}
		wantPinned(t, dir, keys[3])
	})
}

// Who signed the newest list need not be in it: what was written down is known
// at a restart all the same.
func TestAManagerWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.signer, signingKey(t)
		l := &line{f: f}
		l.set(a, a, b)
		dir, _ := f.joined()
		r := f.open(inDir(dir))
		l.set(a, b)
		l.put(b)
		synctest.Wait()
		wantPinned(t, dir, b)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		old := &line{f: f}
		old.set(b, a, b)
		r = f.open(inDir(dir))
		synctest.Wait()
		wantPinned(t, dir, b)
		if s := r.Status(); s.Refused[replica.RefusedReplay] != 1 {
			t.Errorf("%+v", s)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		// Somebody pins another key by hand: that counts.
		c := signingKey(t)
		if err := seal.WriteVerifyKeyFile(filepath.Join(dir, replica.ManagersFile), c.Public()); err != nil {
			t.Fatal(err)
		}
		f.signer = c
		leaf := f.publish(id1, 1, "a.example")
		r = f.open(inDir(dir))
		synctest.Wait()
		wantServed(t, r, "a.example", leaf)
	})
}

// When a manager's key is revoked, another signs what stands on the bus.
func TestTheSameSignedAnewIsNoReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.signer, signingKey(t)
		l := &line{f: f}
		l.set(a, a, b)
		body := f.certificate(id1, event.Version{Epoch: 1, Generation: 1}, f.groupKey.Public(), "a.example")
		gone := &event.Removal{Group: "default", ID: id2, Version: event.Version{Epoch: 1, Generation: 2}}
		key, goneKey := event.CertificateKey("default", id1), event.CertificateKey("default", id2)
		f.put(key, f.sign(body))
		f.put(goneKey, f.sign(gone))
		dir, m := f.joined()
		r := f.open(inDir(dir))
		synctest.Wait()
		leaf := serves(t, r, "a.example")

		f.signer = b
		f.put(key, f.sign(body))
		f.put(goneKey, f.sign(gone))
		f.member(m, f.groupKey)
		l.set(b, b)
		synctest.Wait()
		r = f.restart(r, dir, "a.example", leaf)
		// From the start, the bus has what is held: nothing is lost.
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = f.open(inDir(dir))
		f.notice(f.sign(&event.Beacon{Group: "default", Position: "start", Digest: make([]byte, 32)}))
		time.Sleep(time.Minute)
		synctest.Wait()
		s := r.Status()
		if s.Applied != 0 || len(s.Refused) != 0 || !s.Differs {
			t.Errorf("%+v", s)
		}
		if page := f.receipt(m)[0]; len(page.Proofs) != 0 {
			t.Errorf("receipt %+v", page)
		}
	})
}

func TestTheSameSignedAnewWithoutASnapshot(t *testing.T) {
	w := newWorld(t)
	a, b := w.signer, signingKey(t)
	c := w.config()
	c.Managers = []*seal.VerifyKey{a.Public(), b.Public()}
	body := w.certificate(id1, event.Version{Epoch: 1, Generation: 1}, w.groupKey.Public(), "a.example")
	key := event.CertificateKey("default", id1)
	w.put(key, w.sign(body))
	r := w.open(c)
	leaf := serves(t, r, "a.example")
	w.signer = b
	w.put(key, w.sign(body))
	w.sync(r)
	wantServed(t, r, "a.example", leaf)
	if s := r.Status(); len(s.Refused) != 0 || s.Applied != 2 || s.SnapshotErrors != 0 { // the other is sync's
		t.Errorf("%+v", s)
	}
}
