// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

// TestTenManagers has ten managers, and commands, renew two hundred certificates
// that are due at the same moment, again and again for two minutes, while the
// managers are stopped, continued and killed at random, the one with the bus
// too. Each round has to make exactly one generation of each certificate, and no
// handshake with a replica may fail.
func TestTenManagers(t *testing.T) {
	t.Parallel()
	const count, certificates, long = 10, 200, 2 * time.Minute
	start := newSeed(t)
	f := newManagers(t, count)
	lib, conn := f.library(f.data)
	ids := f.makeMany(lib, certificates)
	f.keyturn("group", "mk", "commands")
	own := strings.TrimSpace(f.keyturn("cert", "mk", "commands.example.com", "--group", "commands"))

	dir := f.join("replica")
	r := f.replica(dir)
	shaken := f.shakeHands(r, len(ids))
	commands := f.commands(own)
	d := newDisturbance(f, start)

	rounds, begun := uint64(0), time.Now()
	for !t.Failed() && (rounds < 2 || time.Since(begun) < long) {
		rounds++
		from := time.Now()
		d.whileSteady(func() { f.mark(lib, ids) })
		f.awaitRound(lib, ids, 1+rounds)
		t.Logf("round %d took %v", rounds, seconds(time.Since(from)))
	}
	d.end()
	commands()
	if t.Failed() {
		return
	}
	t.Logf("%d rounds of %d certificates, %s", rounds, certificates, d)
	published := f.checkGenerations(lib, conn, ids, 1+rounds)
	f.checkServed(r, lib, ids)
	shaken()
	for _, m := range f.all[1:] {
		m.now().stop(t, sigterm)
	}
	f.all[0].now().stop(t, sigterm)
	f.checkLogs(published)
}

// newSeed is where random choices start, and says so.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	t.Logf("go test ./e2e -run '^%s$' -seed %d", t.Name(), start)
	return start
}

func nameOf(i int) string { return fmt.Sprintf("n%d.example.com", i) }

// makeMany makes certificates that are not due by themselves while the test runs.
func (f *managers) makeMany(lib *manager.Manager, n int) []string {
	f.t.Helper()
	ids := make([]string, n)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < n; i += 4 {
				c, err := lib.Make(f.t.Context(), manager.Request{Names: []string{nameOf(i)}, Issuer: "internal", Key: issuer.ECDSAP256, Lifetime: 24 * time.Hour})
				if err != nil {
					f.t.Error(err)
					return
				}
				ids[i] = c.ID
			}
		})
	}
	if wg.Wait(); f.t.Failed() {
		f.t.FailNow()
	}
	return ids
}

// mark makes the next generation of all certificates due at once.
func (f *managers) mark(lib *manager.Manager, ids []string) {
	f.t.Helper()
	n, err := lib.MarkGroup(f.t.Context(), manager.DefaultGroup, event.ReasonRekey)
	if err != nil || n != len(ids) {
		f.t.Fatalf("%d of %d certificates are marked: %v", n, len(ids), err)
	}
}

// awaitRound waits until all certificates are at a generation. One that is
// beyond it was renewed twice.
func (f *managers) awaitRound(lib *manager.Manager, ids []string, generation uint64) {
	f.t.Helper()
	wanted := make(map[string]bool)
	for _, id := range ids {
		wanted[id] = true
	}
	last := "nothing was listed"
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(f.t.Context(), patience)
		list, err := lib.List(ctx)
		cancel()
		if err != nil {
			last = err.Error()
			continue
		}
		done := 0
		for _, c := range list {
			switch {
			case !wanted[c.ID]:
			case c.Generation > generation:
				f.t.Fatalf("%s is at generation %d, and %d is due: it was renewed twice", c.ID, c.Generation, generation)
			case c.Generation == generation:
				done++
			default:
				last = fmt.Sprintf("%s is at generation %d, claim %+v, failure %+v", c.ID, c.Generation, c.Claim, c.Failure)
			}
		}
		if done == len(ids) {
			return
		}
	}
	f.t.Fatalf("not all certificates came to generation %d: %s", generation, last)
}

// checkGenerations compares the histories with what the group's replicas are
// given, and returns the serial numbers of all generations, by "id generation".
func (f *managers) checkGenerations(lib *manager.Manager, conn bus.Conn, ids []string, generations uint64) map[string]string {
	f.t.Helper()
	published, seen := make(map[string]string), make(map[string]string)
	for _, id := range ids {
		c, err := lib.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		if uint64(len(c.History)) != generations || c.Generation != generations || c.Claim != nil || c.Mark != nil || c.Failure != nil {
			f.t.Errorf("%s: generation %d, %d in the history, claim %v, mark %v, failure %v; want %d generations and nothing else",
				id, c.Generation, len(c.History), c.Claim, c.Mark, c.Failure, generations)
		}
		for i, g := range c.History {
			serial, n := fmt.Sprintf("%x", g.Serial), g.Version.Generation
			if n != uint64(i+1) {
				f.t.Errorf("%s: generation %d stands where %d should", id, n, i+1)
			}
			what := fmt.Sprintf("%s %d", id, n)
			if other, twice := seen[serial]; twice {
				f.t.Errorf("serial %s is that of %s and of %s", serial, other, what)
			}
			seen[serial], published[what] = what, serial
		}
		leaf, err := c.Leaf()
		if err != nil {
			f.t.Fatal(err)
		}
		if got, want := serialOf(leaf), published[fmt.Sprintf("%s %d", id, generations)]; got != want {
			f.t.Errorf("%s: the state has serial %s, its history %s", id, got, want)
		}
		eventually(f.t, "the group's entry", func() error {
			entry, err := conn.Get(f.t.Context(), event.CertificateKey(manager.DefaultGroup, id))
			if err == nil && !bytes.Equal(entry.Data, c.Current) {
				err = errors.New(id + ": the group has something else than the state")
			}
			return err
		})
	}
	return published
}

// checkServed makes a handshake for each certificate.
func (f *managers) checkServed(r *shaker, lib *manager.Manager, ids []string) {
	f.t.Helper()
	for i, id := range ids {
		c, err := lib.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		leaf, err := c.Leaf()
		if err != nil {
			f.t.Fatal(err)
		}
		eventually(f.t, nameOf(i), func() error { return r.as(nameOf(i)).sees(serialOf(leaf)) })
	}
}

// checkLogs looks at what all managers said over all their runs: each generation
// was published by one of them, once.
func (f *managers) checkLogs(published map[string]string) {
	f.t.Helper()
	said, unpublished := make(map[string]string), 0
	serials := make(map[string]bool)
	for _, serial := range published {
		serials[serial] = true
	}
	for _, m := range f.all {
		for _, run := range m.runs {
			for _, line := range lines(run.err.String()) {
				switch at := attributes(line); at["msg"] {
				case "certificate is published":
					_, n, _ := strings.Cut(at["version"], ".")
					what := at["managed_id"] + " " + n
					if other := said[what]; other != "" {
						f.t.Errorf("%s was published by %s and by %s", what, other, m.name)
					}
					said[what] = m.name
					if want, ok := published[what]; ok && at["serial"] != want {
						f.t.Errorf("%s: %s published serial %s, the history has %s", what, m.name, at["serial"], want)
					}
				case "certificate is issued": // of any group
					if !serials[at["serial"]] {
						unpublished++
					}
				}
			}
		}
	}
	missing := 0
	for what := range published {
		if said[what] == "" {
			missing++
		}
	}
	f.t.Logf("of %d generations the managers published %d; the others are of commands, or of managers that were killed before they said so; the CA issued %d to managers that could not publish them", len(published), len(published)-missing, unpublished)
}

// attributes reads a line of a text log, as far as no value has quotes in it.
func attributes(line string) map[string]string {
	all := make(map[string]string)
	for line != "" {
		name, rest, ok := strings.Cut(line, "=")
		if !ok {
			break
		}
		var value string
		if quoted, found := strings.CutPrefix(rest, `"`); found {
			value, line, _ = strings.Cut(quoted, `"`)
			line = strings.TrimPrefix(line, " ")
		} else {
			value, line, _ = strings.Cut(rest, " ")
		}
		all[name] = value
	}
	return all
}

// commands has the commands of an eleventh manager work all the time. The
// returned function ends that, and looks at the one certificate that only they
// renew.
func (f *managers) commands(own string) func() {
	var stop atomic.Bool
	var wg sync.WaitGroup
	var renewals, passes, failed int
	wg.Go(func() {
		for !stop.Load() {
			_, err := f.renew(own)
			if renewals++; err == nil {
				_, err = f.try("renew", "--due", "--max", "10", "--for", "10s")
				passes++
			}
			if err == nil {
				_, err = f.try("cert", "ls")
			}
			var exit *exitError
			switch {
			case errors.As(err, &exit) && exit.code == 1:
				failed++ // the bus was away
			case err != nil:
				f.t.Error(err)
				return
			}
		}
	})
	return func() {
		f.t.Helper()
		stop.Store(true)
		wg.Wait()
		f.t.Logf("commands: %d renewals of a certificate of their own, %d passes; %d failed", renewals, passes, failed)
		c, err := f.tryCat(own)
		if err == nil {
			err = c.consistent()
		}
		if err != nil {
			f.t.Error(err)
		}
		if c.Generation < 2 {
			f.t.Errorf("generation %d: the commands renewed nothing", c.Generation)
		}
	}
}

// join has a host join the default group, and returns its directory.
func (f *managers) join(name string) string {
	f.t.Helper()
	dir := path.Join(f.state, name)
	token := strings.TrimSpace(f.keyturn("replica", "token", manager.DefaultGroup))
	f.keyturn("replica", "join", token, "--dir", dir, "--name", name)
	return dir
}
