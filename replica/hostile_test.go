// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// hostileEvents is how many events a hostile bus makes up: ten times as many where
// KEYTURN_SOAK is set, and a tenth under the race detector, which makes each ten times
// as long.
const hostileEvents = 100_000

// A forger has all that a bus has, and all that a member has but the group's key: it
// writes whatever it likes under whatever key.
type forger struct {
	*fleet
	rand *rand.Rand
	// fresh are events that managers signed, and that the replica would take: it has
	// not seen them. old are those that it has seen the successors of.
	fresh, old []posted
	strangers  []*seal.SigningKey // some were managers once, one is the host itself
}

// posted is an event, and where it belongs.
type posted struct {
	key  string
	data []byte
}

func (f *forger) pick(from []posted) posted { return from[f.rand.IntN(len(from))] }

// forge returns something that is not to be taken, how it was made, and where it is put.
func (f *forger) forge() (how string, p posted) {
	for {
		how, p = f.any()
		if !slices.ContainsFunc(f.fresh, func(q posted) bool { return q.key == p.key && bytes.Equal(q.data, p.data) }) {
			return how, p
		}
	}
}

func (f *forger) any() (how string, p posted) {
	switch n := f.rand.IntN(10); {
	case n < 5:
		p = f.pick(f.fresh)
		how, p.data = f.mutate(p.data)
	case n < 6:
		how, p = "replayed", f.pick(f.old)
	case n < 8:
		how, p = f.transplant()
	default:
		how, p = f.resign()
	}
	return how, p
}

// mutate changes an event in a few places, or the whole of it.
func (f *forger) mutate(data []byte) (how string, _ []byte) {
	b := bytes.Clone(data)
	at := func() int { return f.rand.IntN(len(b)) }
	switch f.rand.IntN(9) {
	case 0:
		how = "a bit flipped"
		b[at()] ^= 1 << f.rand.IntN(8)
	case 1:
		how = "bytes written over"
		for range 1 + f.rand.IntN(8) {
			b[at()] = byte(f.rand.Uint32())
		}
	case 2:
		how, b = "cut", b[:at()]
	case 3:
		how, b = "longer", append(b, make([]byte, 1+f.rand.IntN(64))...)
	case 4: // and its length put right
		how = "a piece taken out"
		i := 5 + f.rand.IntN(len(b)-5)
		b = slices.Delete(b, i, min(len(b), i+1+f.rand.IntN(16)))
		f.measure(b)
	case 5:
		how = "a piece put in"
		b = slices.Insert(b, 5+f.rand.IntN(len(b)-5), f.noise(1+f.rand.IntN(16))...)
		f.measure(b)
	case 6:
		how = "spliced"
		other := f.pick(slices.Concat(f.fresh, f.old)).data
		i := f.rand.IntN(min(len(b), len(other)))
		b = slices.Concat(b[:i], other[i:])
	case 7:
		how = "another's signature"
		other := f.pick(slices.Concat(f.fresh, f.old)).data
		copy(b[len(b)-seal.SignatureSize:], other[len(other)-seal.SignatureSize:])
	default:
		how, b = "noise", f.noise(f.rand.IntN(2*len(b)))
	}
	return how, b
}

func (f *forger) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.rand.Uint32())
	}
	return b
}

// measure makes the length that an event tells the one that it has.
func (f *forger) measure(b []byte) {
	if n := len(b) - 5 - seal.SignatureSize; n >= 0 {
		binary.BigEndian.PutUint32(b[1:], uint32(n))
	}
}

// transplant puts what is right in one place in another.
func (f *forger) transplant() (how string, p posted) {
	p = f.pick(slices.Concat(f.fresh, f.old))
	for own := p.key; p.key == own; {
		p.key = f.pick(f.fresh).key
		if f.rand.IntN(10) == 0 {
			p.key = event.CertificateKey("default", unknown[f.rand.IntN(len(unknown))])
		}
	}
	return "transplanted", p
}

const id3, id4 = "CCCCCCCCCCA", "DDDDDDDDDDA"

// unknown are ids of which managers know nothing.
var unknown = []string{event.NewID(), event.NewID(), event.NewID()}

// resign has somebody sign what managers signed who is none, as it is, changed, or with
// the private key of another certificate.
func (f *forger) resign() (how string, p posted) {
	by := f.strangers[f.rand.IntN(len(f.strangers))]
	p = f.pick(slices.Concat(f.fresh, f.old))
	how = "signed by a stranger"
	e, err := event.Trusted("default", p.data)
	if err != nil {
		f.t.Fatal(err)
	}
	c, ok := e.Body.(*event.Certificate)
	if !ok || f.rand.IntN(2) == 0 {
		if p.data, err = event.Resign(by, p.data); err != nil {
			f.t.Fatal(err)
		}
		return how, p
	}
	c.Generation += uint64(f.rand.IntN(1000))
	if other, err := event.Trusted("default", f.pick(f.fresh).data); err == nil {
		if from, ok := other.Body.(*event.Certificate); ok {
			how, c.SealedKey = "another's key, signed by a stranger", from.SealedKey
		}
	}
	if p.data, err = event.Sign(by, "default", time.Now(), c); err != nil {
		f.t.Fatal(err)
	}
	return how, p
}

// post puts an event where the replica finds it.
func (f *forger) post(p posted) {
	if p.key == event.BeaconKey("default") {
		f.notice(p.data)
		return
	}
	f.put(p.key, p.data)
}

// A past is what a replica has seen, and what it serves since.
type past struct {
	managers *line
	member   *event.Member
	leafs    map[string]*x509.Certificate
	left     *seal.SigningKey // of one who was a manager
	current  []posted         // what stands of what has no generations
}

// keep notes what stands under a key, so that it can be replayed.
func (f *forger) keep(key string) posted {
	f.t.Helper()
	e, err := f.log.Get(f.t.Context(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	p := posted{key, e.Data}
	f.old = append(f.old, p)
	time.Sleep(time.Second)
	return p
}

func (f *forger) version(generation uint64) event.Version {
	return event.Version{Epoch: 1, Generation: generation}
}

// history has everything happen that a replica sees, more than once.
func (f *forger) history() (*past, string) {
	h := &past{managers: &line{f: f.fleet}, leafs: make(map[string]*x509.Certificate), left: signingKey(f.t)}
	a, b := f.signer, h.left
	h.managers.set(a, a)
	dir, m := f.joined()
	h.member = m
	member, challenges := event.MemberKey("default", m.ID), event.ChallengesKey("default")
	f.keep(event.ManagersKey)
	f.keep(member)
	h.managers.set(a, a, b)
	f.keep(event.ManagersKey)
	f.signer = b // who leaves
	for generation := range uint64(2) {
		f.publish(id1, generation+1, "a.example")
		f.keep(event.CertificateKey("default", id1))
		f.publish(id2, generation+1, "b.example")
		f.keep(event.CertificateKey("default", id2))
	}
	f.signer = a
	h.managers.set(a, a)
	h.leafs["a.example"] = f.publish(id1, 3, "a.example")
	h.leafs["c.example"] = f.publish(id3, 5, "c.example")
	f.put(event.CertificateKey("default", id2), f.sign(&event.Removal{Group: "default", ID: id2, Version: f.version(3)}))
	f.challenges(challengeFor(event.ChallengeHTTP01, "a.example", "1"))
	f.keep(challenges)
	f.old = append(f.old, posted{event.BeaconKey("default"), f.beaconOf(a)})
	time.Sleep(time.Second)

	f.member(m, groupKey(f.t), f.groupKey)
	f.challenges(challengeFor(event.ChallengeHTTP01, "a.example", "2"), challengeFor(event.ChallengeTLSALPN01, "c.example", "2"))
	beacon := posted{event.BeaconKey("default"), f.beaconOf(a)}
	f.notice(beacon.data)
	h.current = []posted{f.keep(member), f.keep(challenges), f.keep(event.ManagersKey), beacon}

	host, err := seal.ReadIdentityFile(filepath.Join(dir, replica.HostFile))
	if err != nil {
		f.t.Fatal(err)
	}
	f.strangers = []*seal.SigningKey{h.left, host.Signing, signingKey(f.t)}
	return h, dir
}

// future has managers sign what nobody sees yet.
func (f *forger) future(h *past) (comes *seal.PrivateKey) {
	certificate := func(id string, generation uint64, name string) {
		c := f.certificate(id, f.version(generation), f.groupKey.Public(), name)
		f.fresh = append(f.fresh, posted{event.CertificateKey("default", id), f.sign(c)})
	}
	certificate(id1, 4, "a.example")
	certificate(id2, 4, "b.example")
	certificate(id3, 6, "c.example")
	certificate(id4, 1, "d.example")
	f.fresh = append(f.fresh, posted{event.CertificateKey("default", id3), f.sign(&event.Removal{Group: "default", ID: id3, Version: f.version(7)})})
	comes = groupKey(f.t)
	next := *h.member
	if err := next.Seal("default", []*seal.PrivateKey{comes, f.groupKey}); err != nil {
		f.t.Fatal(err)
	}
	set := &event.ManagerSet{Serial: h.managers.serial + 1, Keys: []event.ManagerKey{
		{Name: "m", Key: f.signer.Public().Bytes()}, {Name: "n", Key: signingKey(f.t).Public().Bytes()},
	}}
	chain := &event.ManagerChain{Sets: slices.Clone(h.managers.chain.Sets)}
	if err := chain.Add(f.signer, "default", time.Now(), set); err != nil {
		f.t.Fatal(err)
	}
	for _, body := range []event.Body{&next, chain, challengesOf(challengeFor(event.ChallengeHTTP01, "d.example", "3"))} {
		f.fresh = append(f.fresh, posted{event.Key(body), f.sign(body)})
	}
	f.fresh = append(f.fresh, posted{event.BeaconKey("default"), f.beaconOf(f.signer)})
	return comes
}

// state is all that events can change of a replica.
func (f *forger) state(r *replica.Replica) string {
	s := r.Status()
	var versions []event.Version
	for _, id := range slices.Concat([]string{id1, id2, id3, id4}, unknown) {
		versions = append(versions, r.Version(id))
	}
	return fmt.Sprint(versions, s.Certificates, s.Applied, s.Removed, s.Challenges, s.Keys, s.Revoked, s.Beacon, s.Budget)
}

// TestHostileEvents has a bus make up events for a replica: changed, replayed, signed by
// others, put elsewhere. None is taken, and what is served stays served, after a
// restart, too. In the end it takes the events that all was made of.
func TestHostileEvents(t *testing.T) {
	n, seed := hostileEvents, rand.Uint64()
	if race.Enabled {
		n /= 10
	}
	if os.Getenv("KEYTURN_SOAK") != "" {
		n *= 10
	}
	t.Logf("%d events, seed %d", n, seed)
	synctest.Test(t, func(t *testing.T) {
		f := &forger{fleet: newFleet(t), rand: rand.New(rand.NewPCG(seed, 0))}
		h, dir := f.history()
		managers := f.signer
		var forged string
		c := inDir(dir)
		r := f.open(c)
		synctest.Wait()
		time.Sleep(time.Second)
		comes := f.future(h)
		r = f.reopen(r, c)
		before := f.state(r)
		unharmed := func() {
			t.Helper()
			if got := f.state(r); got != before {
				t.Fatalf("%s is taken:\n%s\nbefore:\n%s", forged, got, before)
			}
		}
		served := func() {
			t.Helper()
			for name, leaf := range h.leafs {
				wantServed(t, r, name, leaf)
			}
			wantPinned(t, dir, managers)
		}

		made := make(map[string]int)
		for i := range n {
			how, p := f.forge()
			forged = fmt.Sprintf("event %d, %s, at %s,", i, how, p.key)
			f.post(p)
			synctest.Wait()
			unharmed()
			if made[how]++; i%1000 == 0 {
				served()
			}
		}
		t.Log(made, r.Status().Refused)
		served()

		// Of the certificates, what stands on the bus now is the last of all that.
		for _, p := range h.current {
			f.post(p)
		}
		synctest.Wait()
		forged = "what stands there after a restart"
		r = f.reopen(r, c)
		unharmed()
		served()

		for _, p := range f.fresh {
			f.post(p)
			synctest.Wait()
		}
		s := r.Status()
		if r.Version(id1) != f.version(4) || r.Version(id2) != f.version(4) || r.Version(id3) != f.version(7) || r.Version(id4) != f.version(1) ||
			s.Challenges != 1 || len(s.Keys) == 0 || s.Keys[0] != comes.Public().ID() {
			t.Errorf("what managers signed is not taken: %s", f.state(r))
		}
	})
}

func (f *forger) reopen(r *replica.Replica, c replica.Config) *replica.Replica {
	f.t.Helper()
	if err := r.Close(); err != nil {
		f.t.Fatal(err)
	}
	r = f.open(c)
	synctest.Wait()
	return r
}
