// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
)

// leafOf parses the leaf of a certificate.
func leafOf(t *testing.T, c *event.Certificate) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestWhatTurnsOutToBeNoGood has a new replica find, among good ones, certificates that
// managers signed and that are none: it refuses them, though nobody asks for them, and
// does not serve them after a restart either, until what they should have been comes.
func TestWhatTurnsOutToBeNoGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.config()
		c.Snapshot = t.TempDir()
		first := event.Version{Epoch: 1, Generation: 1}
		good := w.publish(id1, 1, "a.example")
		mixed := w.certificate(id2, first, w.groupKey.Public(), "b.example")
		mixed.Chain = w.certificate(id2, first, w.groupKey.Public(), "b.example").Chain
		w.put(event.CertificateKey("default", id2), w.sign(mixed))
		wrong := w.certificate(id3, first, w.groupKey.Public(), "a.example") // it would be preferred: it is newer
		if err := wrong.SealKey("default", w.groupKey.Public(), pkcs8Of(t)); err != nil {
			t.Fatal(err)
		}
		w.put(event.CertificateKey("default", id3), w.sign(wrong))
		var changes []replica.Change
		c.OnChange = func(c replica.Change) { changes = append(changes, c) }
		r := w.open(c)
		synctest.Wait()
		check := func(when string) {
			t.Helper()
			s := r.Status()
			if s.Refused[replica.RefusedKey] != 1 || s.Refused[replica.RefusedCertificate] != 1 || s.Certificates != 1 {
				t.Errorf("%s: %+v", when, s)
			}
			if r.Version(id2) != (event.Version{}) || r.Version(id3) != (event.Version{}) || r.Store().Len() != 1 {
				t.Errorf("%s: what was refused is held", when)
			}
			for _, one := range r.Served() {
				if one.Served.IsZero() != (one.Error != "") || (one.ID == id1) != (one.Error == "") {
					t.Errorf("%s: %+v", when, one)
				}
			}
			wantServed(t, r, "a.example", good)
			if serves(t, r, "b.example") != nil {
				t.Errorf("%s: a key that was sealed for another chain is served", when)
			}
		}
		check("at first")
		if len(changes) != 5 || changes[0].Leaf == nil || !changes[0].Leaf.Equal(good) || changes[4].Leaf != nil {
			t.Errorf("changes: %+v", changes)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r = w.open(c)
			synctest.Wait()
			check("after a restart")
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}

		c.Log = nil
		r = w.open(c)
		synctest.Wait()
		if s := r.Status(); s.Certificates != 1 || r.Store().Len() != 1 {
			t.Errorf("after a restart without a bus: %+v", s)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		c.Log = w.log
		r = w.open(c)
		mended := w.publish(id2, 2, "b.example")
		time.Sleep(time.Second)
		synctest.Wait()
		wantServed(t, r, "b.example", mended)
	})
}

// TestWhatItsEventMisnames has a good certificate come during catch-up whose event says
// that it is for another name: it is served for its own.
func TestWhatItsEventMisnames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.certificate(id1, event.Version{Epoch: 1, Generation: 1}, w.groupKey.Public(), "a.example")
		c.Names = []string{"b.example"}
		w.put(event.CertificateKey("default", id1), w.sign(c))
		r := w.open(w.config())
		synctest.Wait()
		if s := r.Status(); s.Certificates != 1 || len(s.Refused) != 0 {
			t.Errorf("%+v", s)
		}
		wantServed(t, r, "a.example", leafOf(t, c))
		if serves(t, r, "b.example") != nil {
			t.Error("it is served for a name that it does not have")
		}
	})
}
