// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

func TestABeaconHealsWhatWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape()
		f := newFleetOn(t, log)
		old := f.publish(id1, 1, "a.example")
		dir, m := f.joined()
		r := f.open(inDir(dir))
		f.beacon()
		synctest.Wait()
		if s := r.Status(); s.Differs || s.Silent || s.Beacon.IsZero() || s.Member != m.ID {
			t.Fatalf("%+v", s)
		}

		log.hide(event.CertificateKey("default", id1))
		missed := f.publish(id1, 2, "a.example")
		f.sync(r)
		log.hide("")
		wantServed(t, r, "a.example", old)

		start := time.Now()
		for serves(t, r, "a.example").Equal(old) {
			f.beacon()
			time.Sleep(event.BeaconEvery)
			synctest.Wait()
			if time.Since(start) > 2*time.Minute {
				t.Fatalf("not healed after two minutes: %+v", r.Status())
			}
		}
		wantServed(t, r, "a.example", missed)
		if s := r.Status(); s.Differs || s.Healed != 1 || len(s.Refused) != 0 {
			t.Fatalf("%+v", s)
		}
		if page := f.receipt(m)[0]; page.Healed != 1 || page.Differs || len(page.Proofs) != 0 {
			t.Errorf("receipt %+v", page)
		}
	})
}

func TestABeaconIsComparedWithWhatWasHeldThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.publish(id1, 1, "a.example")
		dir, _ := f.joined()
		r := f.open(inDir(dir))
		f.publish(id1, 2, "a.example")
		f.publish(id2, 1, "b.example")
		synctest.Wait()
		then := f.beaconOf(f.signer) // on its way, while the world goes on
		f.publish(id1, 3, "a.example")
		f.put(event.CertificateKey("default", id2), f.sign(&event.Removal{Group: "default", ID: id2, Version: event.Version{Epoch: 1, Generation: 2}}))
		f.sync(r)
		f.notice(then)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Status(); s.Beacon.IsZero() || s.Differs || s.Healed != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestABeaconThatIsAheadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape()
		f := newFleetOn(t, log)
		f.publish(id1, 1, "a.example")
		dir, _ := f.joined()
		r := f.open(inDir(dir))
		synctest.Wait()
		log.hide(event.CertificateKey("default", id1))
		f.publish(id1, 2, "a.example")
		synctest.Wait()
		log.hide("") // told with what comes next
		f.beacon()
		log.hide(event.CertificateKey("default", id1))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if s := r.Status(); s.Differs {
			t.Fatalf("judged before its place was reached: %+v", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := r.Status(); !s.Differs {
			t.Fatalf("not judged after ten seconds: %+v", s)
		}
	})
}

func TestWhatIsNoBeacon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		dir, _ := f.joined()
		r := f.open(inDir(dir))
		synctest.Wait()
		old := f.beaconOf(f.signer)
		time.Sleep(time.Second)
		f.publish(id1, 1, "a.example")
		f.beacon()
		synctest.Wait()
		seen := r.Status().Beacon

		stranger, _ := seal.GenerateSigningKey()
		for _, data := range [][]byte{f.beaconOf(stranger), []byte("junk"), f.sign(&event.Beacon{Group: "other", Digest: make([]byte, 32)}), old} {
			time.Sleep(time.Second)
			f.notice(data)
			synctest.Wait()
		}
		s := r.Status()
		if !s.Beacon.Equal(seen) || s.Differs {
			t.Errorf("taken: %+v", s)
		}
		if s.Refused[replica.RefusedSigner] != 1 || s.Refused[replica.RefusedMalformed] != 1 || s.Refused[replica.RefusedMoved] != 1 {
			t.Errorf("refused %v", s.Refused)
		}
	})
}

func TestSilenceAndSkewAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		dir, m := f.joined()
		r := f.open(inDir(dir))
		time.Sleep(3*time.Minute - time.Second)
		synctest.Wait()
		if r.Status().Silent {
			t.Fatal("silent before three minutes")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !r.Status().Silent {
			t.Fatal("nothing has come for three minutes")
		}
		data := f.beaconOf(f.signer)
		time.Sleep(5 * time.Second) // the manager's clock is behind
		f.notice(data)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := r.Status(); s.Silent || s.Skew != -5*time.Second {
			t.Errorf("%+v", s)
		}
		if page := f.receipt(m)[0]; page.Skew != -5*time.Second {
			t.Errorf("receipt %+v", page)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if !r.Status().Silent {
			t.Error("silent again, and not reported")
		}
	})
}

// The log loses its last twenty entries and goes on under the same numbers,
// while handshakes run.
func TestALogThatWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape()
		f := newFleetOn(t, log)
		var ids, names []string
		for i := range 30 {
			ids, names = append(ids, event.NewID()), append(names, fmt.Sprintf("n%d.example", i))
			f.publish(ids[i], 1, names[i])
		}
		dir, m := f.joined()
		newest := make(map[string]event.Version)
		c := inDir(dir)
		c.OnChange = func(ch replica.Change) {
			if ch.Version.Less(newest[ch.ID]) {
				t.Errorf("%s went from %s back to %s", ch.ID, newest[ch.ID], ch.Version)
			}
			newest[ch.ID] = ch.Version
		}
		r := f.open(c)
		for i := range 20 {
			f.publish(ids[i], 2, names[i])
		}
		synctest.Wait()
		ctx, stop := context.WithCancel(t.Context())
		done, handshakes := make(chan struct{}), new(atomic.Int64)
		go func() {
			defer close(done)
			for i := 0; ctx.Err() == nil; i++ {
				if err := handshake(r, names[i%len(names)]); err != nil {
					t.Errorf("handshake: %v", err)
				}
				handshakes.Add(1)
				time.Sleep(200 * time.Millisecond)
			}
		}()

		log.back(20)
		for i := range 30 {
			f.publish(ids[i%10+20], uint64(2+i/10), names[i%10+20])
		}
		proven := make(map[string]bool)
		for range 3 {
			f.beacon()
			for range 60 {
				time.Sleep(time.Second)
				synctest.Wait()
				for _, p := range f.receipt(m)[0].Proofs {
					e, err := event.Trusted("default", p)
					if err != nil {
						t.Fatal(err)
					}
					proven[e.Body.(*event.Certificate).ID] = true
				}
			}
		}
		for i, id := range ids {
			want := event.Version{Epoch: 1, Generation: 2}
			if i >= 20 {
				want.Generation = 4
			}
			if v := r.Version(id); v != want {
				t.Errorf("%s has %s", id, v)
			}
			if proven[id] != (i < 20) {
				t.Errorf("proof of number %d: %t", i, proven[id])
			}
		}
		if s := r.Status(); !s.Differs {
			t.Errorf("%+v", s)
		}

		// A manager raises the epoch: what was lost is newer than ever.
		for i := range 20 {
			cert := f.certificate(ids[i], event.Version{Epoch: 2, Generation: 1}, f.groupKey.Public(), names[i])
			f.put(event.CertificateKey("default", ids[i]), f.sign(cert))
		}
		time.Sleep(time.Minute)
		f.beacon()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Status(); s.Differs {
			t.Errorf("%+v", s)
		}
		if page := f.receipt(m)[0]; len(page.Proofs) != 0 || page.Differs {
			t.Errorf("receipt %+v", page)
		}
		stop()
		<-done
		if handshakes.Load() < 500 {
			t.Errorf("%d handshakes", handshakes.Load())
		}
	})
}

// handshake makes a TLS connection to the replica's store.
func handshake(r *replica.Replica, name string) error {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, r.Store().ServerConfig())
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	client := tls.Client(b, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		return err
	}
	if err := <-failed; err != nil {
		return err
	}
	return client.ConnectionState().PeerCertificates[0].VerifyHostname(name)
}
