// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"bytes"
	"slices"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/internal/durable/powercut"
)

// trusted is what the server's trust hangs on, as its directory has it.
type trusted struct {
	seeds [][]byte
	root  []byte
}

// load is the part of Start that makes what is missing of it.
func load(t *testing.T, dir string) trusted {
	t.Helper()
	k, err := loadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := loadAccounts(dir, []string{"other"})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := loadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := trusted{root: ca.root()}
	for _, key := range []nkeys.KeyPair{
		k.operator, k.system, accounts[""].key, accounts[""].signing, accounts["other"].key, accounts["other"].signing,
	} {
		seed, err := key.Seed()
		if err != nil {
			t.Fatal(err)
		}
		all.seeds = append(all.seeds, seed)
	}
	return all
}

// TestPowerCut cuts the power at the first start, and at the second, where the first
// was killed: what a start has given out, clients have pinned, and every later start
// gives it out, too. It never makes one part anew beside the other.
func TestPowerCut(t *testing.T) {
	check := func(rec *powercut.Recorder, dir, before string) *powercut.Recording {
		given := load(t, dir)
		rec.Acknowledge(1)
		r := rec.Stop()
		r.Cuts(func(c powercut.Cut) {
			found := load(t, c.Dir)
			if c.Acknowledged > 0 && (!bytes.Equal(found.root, given.root) || !slices.EqualFunc(found.seeds, given.seeds, bytes.Equal)) {
				t.Fatalf("%s%s: other keys are made", before, c)
			}
		})
		return r
	}
	dir := powercut.Dir(t)
	check(powercut.Record(t, dir), dir, "").Kills(func(k powercut.Kill) {
		check(k.Record(), k.Dir, "killed after "+k.After+", then ")
	})
}
