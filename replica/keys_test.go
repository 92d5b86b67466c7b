// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

func groupKey(t testing.TB) *seal.PrivateKey {
	t.Helper()
	k, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// publishTo is publish with a certificate that is sealed to another key.
func (f *fleet) publishTo(to *seal.PrivateKey, id string, generation uint64, name string) *x509.Certificate {
	f.t.Helper()
	c := f.certificate(id, event.Version{Epoch: 1, Generation: generation}, to.Public(), name)
	f.put(event.CertificateKey("default", id), f.sign(c))
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		f.t.Fatal(err)
	}
	return leaf
}

// restart closes a replica, opens it without a bus, where it must serve the
// leaf, and opens it again.
func (f *fleet) restart(r *replica.Replica, dir, name string, leaf *x509.Certificate) *replica.Replica {
	f.t.Helper()
	if err := r.Close(); err != nil {
		f.t.Fatal(err)
	}
	url := filepath.Join(dir, bus.URLFile)
	if err := os.Rename(url, url+".away"); err != nil {
		f.t.Fatal(err)
	}
	r = f.open(inDir(dir))
	wantServed(f.t, r, name, leaf)
	if err := r.Close(); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(url+".away", url); err != nil {
		f.t.Fatal(err)
	}
	r = f.open(inDir(dir))
	synctest.Wait()
	wantServed(f.t, r, name, leaf)
	return r
}

func wantKeys(t testing.TB, r *replica.Replica, dir string, want ...*seal.PrivateKey) {
	t.Helper()
	var ids []seal.KeyID
	for _, k := range want {
		ids = append(ids, k.Public().ID())
	}
	if got := r.Status().Keys; !slices.Equal(got, ids) {
		t.Fatalf("keys %v are held, not %v", got, ids)
	}
	stored, err := seal.ReadPrivateKeyFile(replica.KeyFile(dir, "default"))
	if err != nil || !slices.EqualFunc(stored, want, (*seal.PrivateKey).Equal) {
		t.Fatalf("the key file has %d keys, not %d: %v", len(stored), len(want), err)
	}
}

func TestAGroupsKeyIsRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		first := f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		r = f.restart(r, dir, "a.example", first)

		k2 := groupKey(t)
		f.member(m, k2, f.groupKey)
		synctest.Wait()
		wantKeys(t, r, dir, k2, f.groupKey)
		r = f.restart(r, dir, "a.example", first)

		second := f.publishTo(k2, id1, 2, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", second)
		r = f.restart(r, dir, "a.example", second)

		f.member(m, k2)
		synctest.Wait()
		wantKeys(t, r, dir, k2)
		r = f.restart(r, dir, "a.example", second)
		third := f.publishTo(k2, id1, 3, "a.example")
		synctest.Wait()
		r = f.restart(r, dir, "a.example", third)
		if s := r.Status(); len(s.Refused) != 0 || s.SnapshotErrors != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestACertificateThatComesBeforeItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape()
		f := newFleetOn(t, log)
		first := f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		k2 := groupKey(t)
		second := f.publishTo(k2, id1, 2, "a.example")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantServed(t, r, "a.example", first)
		if s := r.Status(); s.Refused[replica.RefusedKey] != 1 {
			t.Fatalf("%+v", s)
		}
		if page := f.receipt(m)[0]; page.Certificates[0].Generation != 1 || page.Certificates[0].Error == "" {
			t.Errorf("receipt %+v", page)
		}
		// A beacon tells nothing new: the bus was followed, and has no more.
		f.beacon()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Status(); !s.Differs || s.Refused[replica.RefusedKey] != 1 {
			t.Fatalf("%+v", s)
		}
		// A restart on the way changes nothing.
		r = f.restart(r, dir, "a.example", first)

		log.hide(event.CertificateKey("default", id1)) // the bus has no part in it
		f.member(m, k2, f.groupKey)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantServed(t, r, "a.example", second)
		if page := f.receipt(m)[0]; page.Certificates[0].Generation != 2 || page.Certificates[0].Error != "" || len(page.Keys) != 2 {
			t.Errorf("receipt %+v", page)
		}
	})
}

// What waits for a key is kept, but not without bound: then the bus is asked
// again.
func TestMoreWaitsForAKeyThanIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		k2 := groupKey(t)
		large := f.certificate(id2, event.Version{Epoch: 1, Generation: 1}, k2.Public(), "b.example")
		large.Chain = [][]byte{make([]byte, 200<<10)}
		for i := range 300 {
			if i == 50 {
				large.Chain = [][]byte{[]byte("short")} // for what room is left
			}
			large.ID = event.NewID()
			f.put(event.CertificateKey("default", large.ID), f.sign(large))
		}
		leaf := f.publishTo(k2, id1, 2, "a.example")
		synctest.Wait()
		f.member(m, k2, f.groupKey)
		synctest.Wait()
		wantServed(t, r, "a.example", leaf)
	})
}

func TestAKeyThatSomethingNeedsIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		first := f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		k2 := groupKey(t)
		f.member(m, k2) // too early, or the certificate is still on its way
		synctest.Wait()
		wantKeys(t, r, dir, k2, f.groupKey)
		r = f.restart(r, dir, "a.example", first)
		wantKeys(t, r, dir, k2, f.groupKey)

		second := f.publishTo(k2, id1, 2, "a.example")
		synctest.Wait()
		wantKeys(t, r, dir, k2)
		f.restart(r, dir, "a.example", second)
	})
}

func TestKeysThatCannotBeWrittenAreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		first := f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		synctest.Wait()
		path := replica.KeyFile(dir, "default")
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		k2 := groupKey(t)
		f.member(m, k2)
		second := f.publishTo(k2, id1, 2, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", second)
		if first.Equal(second) {
			t.Fatal("the same leaf twice")
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		wantKeys(t, r, dir, k2)
		f.restart(r, dir, "a.example", second)
	})
}

func TestARevokedMemberServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, board := newNotedFleet(t)
		leaf := f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		m.Revoked = time.Now()
		f.member(m)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !r.Status().Revoked {
			t.Fatal("revoked, and it does not say so")
		}
		wantServed(t, r, "a.example", leaf)
		board.taken()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if puts := board.taken(); len(puts) != 0 {
			t.Errorf("a revoked member reports: %v", puts)
		}
	})
}

// A log that went back gives out again the numbers that a follower has passed:
// what stands there now is found when a beacon tells that something is missing.
func TestKeysThatALogWentBackBeforeAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape()
		f := newFleetOn(t, log)
		f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		for i := range 5 {
			f.remove(id2, uint64(i+1))
		}
		synctest.Wait()
		log.back(5)
		k2 := groupKey(t)
		log.hide(event.MemberKey("default", m.ID))
		f.member(m, k2, f.groupKey)
		leaf := f.publishTo(k2, id1, 2, "a.example")
		synctest.Wait()
		log.hide("")
		f.beacon()
		time.Sleep(2 * event.BeaconEvery)
		synctest.Wait()
		wantServed(t, r, "a.example", leaf)
		wantKeys(t, r, dir, k2, f.groupKey)
	})
}
