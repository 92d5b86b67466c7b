// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// A beaconLog is every beacon that was put, by group.
type beaconLog struct {
	mu   sync.Mutex
	list map[string][]event.Beacon // guarded by mu
}

func (l *beaconLog) of(group string) []event.Beacon {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list[group]
}

// beacons notes the beacons of a fleet from now on, verified.
func (f *fleet) beacons(t *testing.T) *beaconLog {
	l := &beaconLog{list: make(map[string][]event.Beacon)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for u, err := range f.log.(bus.Boarder).Board().Follow(ctx, event.BeaconScope, bus.Position{}) {
			if err != nil {
				return
			}
			if u.CaughtUp {
				continue
			}
			e, err := event.Open([]*seal.VerifyKey{f.identity.Signing.Public()}, DefaultTenant, u.Key, u.Data)
			if err != nil {
				t.Error(err)
				return
			}
			b := e.Body.(*event.Beacon)
			l.mu.Lock()
			l.list[b.Group] = append(l.list[b.Group], *b)
			l.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return l
}

// standing is what stands under a group's key, and where the newest of it does.
func (f *fleet) standing(t *testing.T, group string) (map[string]event.Version, bus.Position) {
	t.Helper()
	held, at := make(map[string]event.Version), bus.Position{}
	for u, err := range f.log.Follow(t.Context(), event.GroupScope(group), bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			break
		}
		e, err := event.Trusted(DefaultTenant, u.Data)
		if err != nil {
			t.Fatal(err)
		}
		held[strings.TrimPrefix(u.Key, event.GroupScope(group)+"/")], at = versionOf(e.Body), u.Position
	}
	return held, at
}

func (f *fleet) holdsTrue(t *testing.T, b event.Beacon) {
	t.Helper()
	held, at := f.standing(t, b.Group)
	if b.Count != uint64(len(held)) || string(b.Digest) != string(event.NewDigest(held)) || b.Position != at.String() || b.Every != event.BeaconEvery {
		t.Errorf("%+v, and %d stand there, the newest at %v", b, len(held), at)
	}
}

// TestBeacons: of one manager or of several, one a minute for each group.
func TestBeacons(t *testing.T) {
	for _, managers := range []int{1, 4} {
		t.Run(fmt.Sprint(managers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m := newReportingFleet(t)
				if err := m.AddGroup(t.Context(), "empty", f.group.Public()); err != nil {
					t.Fatal(err)
				}
				make1(t, m, "a.example")
				if err := m.Remove(t.Context(), make1(t, m, "b.example").ID); err != nil {
					t.Fatal(err)
				}
				log := f.beacons(t)
				for range managers {
					defer run(t, f.manager(t, ""))()
				}
				const minutes = 60
				time.Sleep(minutes * time.Minute)
				make1(t, m, "c.example")
				time.Sleep(time.Minute + time.Second)
				synctest.Wait()
				for _, group := range []string{DefaultGroup, "empty"} {
					list := log.of(group)
					if n := len(list); n < minutes || n > minutes*6/5+2 {
						t.Errorf("%d managers signed %d beacons for %s in %d minutes", managers, n, group, minutes)
					}
					f.holdsTrue(t, list[len(list)-1])
				}
			})
		})
	}
}

// TestABeaconIsOfWhatIsBelieved: junk and replays under a group's key are not
// what replicas should have.
func TestABeaconIsOfWhatIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c := make1(t, m, "a.example")
		key := event.CertificateKey(DefaultGroup, c.ID)
		old, err := f.log.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		log := f.beacons(t)
		stop := run(t, m)
		defer stop()
		synctest.Wait()
		for _, data := range [][]byte{old.Data, []byte("junk")} {
			now, err := f.log.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.log.Append(t.Context(), key, now.Position, data); err != nil {
				t.Fatal(err)
			}
			if _, err := f.log.Append(t.Context(), event.CertificateKey(DefaultGroup, event.NewID()), bus.Position{}, data); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			list := log.of(DefaultGroup)
			want := event.NewDigest(map[string]event.Version{c.ID: c.Version})
			if b := list[len(list)-1]; b.Count != 1 || string(b.Digest) != string(want) {
				t.Errorf("%+v", b)
			}
			if v := f.copyOf(t, c.ID).(*event.Certificate).Version; v != c.Version {
				t.Errorf("%v stands there", v)
			}
		}
	})
}

// TestNoBeaconBeforeEverythingWasRead: half of what stands there would make
// every replica follow anew.
func TestNoBeaconBeforeEverythingWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		make1(t, m, "a.example")
		log := f.beacons(t)
		late, err := New(Config{
			Log: lateGroups{f.log, time.Hour}, Board: f.log.(bus.Boarder).Board(), Identity: f.identity, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, late)
		defer stop()
		time.Sleep(time.Hour - time.Second)
		if list := log.of(DefaultGroup); len(list) != 0 {
			t.Fatalf("%+v", list)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		list := log.of(DefaultGroup)
		if len(list) == 0 {
			t.Fatal("no beacon")
		}
		f.holdsTrue(t, list[0])
	})
}

// TestARevokedManagerSignsNoBeacons: nobody would believe them.
func TestARevokedManagerSignsNoBeacons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		other, err := seal.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AddSigner(t.Context(), "other", other.Signing.Public(), ""); err != nil {
			t.Fatal(err)
		}
		runner, err := New(Config{Log: f.log, Identity: other, Managers: []*seal.VerifyKey{f.identity.Signing.Public()}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		defer stop()
		newest := func() *event.Event {
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			for u, err := range f.log.(bus.Boarder).Board().Follow(t.Context(), event.BeaconScope, bus.Position{}) {
				if err != nil || u.CaughtUp {
					break
				}
				e, err := event.Trusted(DefaultTenant, u.Data)
				if err != nil {
					t.Fatal(err)
				}
				return e
			}
			t.Fatal("no beacon")
			return nil
		}
		if e := newest(); e.Signer != other.Signing.Public().ID() {
			t.Fatal(e.Signer)
		}
		if err := m.RevokeSigner(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		if last, e := newest(), newest(); !e.Time.Equal(last.Time) {
			t.Error("a revoked manager goes on signing")
		}
	})
}

// TestABoardThatFails holds nothing up, and gets beacons when it is back.
func TestABoardThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c := make1(t, m, "a.example")
		log := f.beacons(t)
		board := &failingBoard{Board: f.log.(bus.Boarder).Board()}
		board.fails.Store(true)
		runner, err := New(Config{Log: f.log, Board: board, Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		defer stop()
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if at(t, m, c.ID).Generation != 2 || len(log.of(DefaultGroup)) != 0 {
			t.Error("the board's failure is the renewal's")
		}
		board.fails.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(log.of(DefaultGroup)) == 0 {
			t.Error("no beacon")
		}
	})
}

type failingBoard struct {
	bus.Board
	fails atomic.Bool
}

func (b *failingBoard) Put(ctx context.Context, key string, data []byte) error {
	if b.fails.Load() {
		return errors.New("no board")
	}
	return b.Board.Put(ctx, key, data)
}

// TestBeaconsOfATimer: a pass signs one for each group, of what it leaves
// behind.
func TestBeaconsOfATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := membus.New()
		f, m := newFleetOn(t, mem)
		c := make1(t, m, "a.example")
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		log := f.beacons(t)
		timer, err := New(Config{Log: mem, Identity: f.identity, Every: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := timer.RenewDue(t.Context(), DueOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		list := log.of(DefaultGroup)
		if len(list) == 0 || list[0].Every != time.Hour {
			t.Fatalf("%+v", list)
		}
		for _, b := range list {
			b.Every = event.BeaconEvery
			f.holdsTrue(t, b)
		}
	})
}
