// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/seal"
)

// A line is a chain of sets of managers that is being made.
type line struct {
	t testing.TB
	ManagerChain
	by *seal.SigningKey // of the newest set
}

// add appends a set with these keys, signed by one.
func (l *line) add(by *seal.SigningKey, serial uint64, keys ...*seal.SigningKey) *line {
	l.t.Helper()
	s := &ManagerSet{Serial: serial}
	for i, k := range keys {
		s.Keys = append(s.Keys, ManagerKey{Name: fmt.Sprint("m", i), Key: k.Public().Bytes(), Added: at})
	}
	next := &line{t: l.t, ManagerChain: l.ManagerChain, by: by}
	if err := next.Add(by, tenant, at, s); err != nil {
		l.t.Fatal(err)
	}
	return next
}

// entry is the chain as who signed the newest set puts it on the bus.
func (l *line) entry() []byte { return sign(l.t, l.by, &l.ManagerChain) }

// without leaves out the set at a place.
func (l *line) without(i int) *line {
	next := &line{t: l.t, by: l.by}
	next.Sets = append(append(next.Sets, l.Sets[:i]...), l.Sets[i+1:]...)
	return next
}

func public(keys ...*seal.SigningKey) []*seal.VerifyKey {
	var list []*seal.VerifyKey
	for _, k := range keys {
		list = append(list, k.Public())
	}
	return list
}

func TestOpenManagers(t *testing.T) {
	a, _ := signer(t)
	b, _ := signer(t)
	c, _ := signer(t)
	evil, _ := signer(t)
	one := (&line{t: t}).add(a, 1, a)
	two := one.add(a, 2, a, b)
	three := two.add(b, 3, b) // a is revoked
	four := three.add(b, 4, b, c)
	moved, err := Sign(b, "another", at, &four.ManagerChain)
	if err != nil {
		t.Fatal(err)
	}
	changed := four.entry()
	changed[len(changed)-1]++
	for what, try := range map[string]struct {
		trusted []*seal.VerifyKey
		serial  uint64
		data    []byte
		want    uint64 // the serial that is found; 0: refused
		err     error  // with this, if not nil
	}{
		"from the first":             {public(a), 1, four.entry(), 4, nil},
		"from the first, not known":  {public(a), 0, four.entry(), 4, nil},
		"from the second":            {public(a, b), 2, four.entry(), 4, nil},
		"from the second, not known": {public(a, b), 0, four.entry(), 4, nil},
		"from the newest":            {public(b, c), 4, four.entry(), 4, nil},
		"from the newest, not known": {public(b, c), 0, four.entry(), 4, nil},
		"the first alone":            {public(a), 0, one.entry(), 1, nil},
		"the oldest are forgotten":   {public(a, b), 2, four.without(0).entry(), 4, nil},

		"known is forgotten":           {public(a), 1, four.without(0).without(0).entry(), 0, seal.ErrUnknownSigner},
		"a gap":                        {public(a), 1, four.without(1).entry(), 0, seal.ErrUnknownSigner},
		"rolled back":                  {public(b, c), 4, three.entry(), 0, ErrOldManagers},
		"rolled back to who is gone":   {public(b, c), 4, two.entry(), 0, nil},
		"from the newest of others":    {public(evil), 0, four.entry(), 0, seal.ErrUnknownSigner},
		"nobody is trusted":            {nil, 0, four.entry(), 0, seal.ErrUnknownSigner},
		"a fork by who is gone":        {public(b, c), 4, two.add(a, 5, a).entry(), 0, nil},
		"more by who is gone":          {public(b, c), 4, four.add(a, 5, a).entry(), 0, seal.ErrUnknownSigner},
		"more by who is gone, unknown": {public(b, c), 0, four.add(a, 5, a).entry(), 0, seal.ErrUnknownSigner},
		"more by a stranger":           {public(a), 1, four.add(evil, 5, evil).entry(), 0, seal.ErrUnknownSigner},
		"put there by who is gone":     {public(b, c), 4, sign(t, a, &four.ManagerChain), 0, seal.ErrUnknownSigner},
		"put there by a stranger":      {public(b, c), 4, sign(t, evil, &four.ManagerChain), 0, seal.ErrUnknownSigner},
		"another line altogether":      {public(b, c), 4, (&line{t: t}).add(evil, 9, evil).entry(), 0, seal.ErrUnknownSigner},
		"another tenant's":             {public(b, c), 4, moved, 0, ErrMoved},
		"a changed byte":               {public(b, c), 4, changed, 0, seal.ErrSignature},
		"something else":               {public(b, c), 4, sign(t, b, &LogInfo{Epoch: 1}), 0, ErrMalformed},
		"junk in it":                   {public(b, c), 4, sign(t, b, &ManagerChain{Sets: [][]byte{[]byte("junk")}}), 0, ErrMalformed},
		"junk":                         {public(b, c), 4, []byte("junk"), 0, ErrMalformed},
	} {
		set, err := OpenManagers(try.trusted, try.serial, tenant, try.data)
		switch {
		case try.want == 0 && (err == nil || try.err != nil && !errors.Is(err, try.err)):
			t.Errorf("%s: %+v, %v, want %v", what, set, err, try.err)
		case try.want != 0 && (err != nil || set.Serial != try.want):
			t.Errorf("%s: %+v, %v, want serial %d", what, set, err, try.want)
		}
	}
}

// TestManyManagers: the list fits into an entry however often they change, and
// who knows one of the sets in it finds the newest.
func TestManyManagers(t *testing.T) {
	keys := make([]*seal.SigningKey, MaxKeys)
	for i := range keys {
		keys[i], _ = signer(t)
	}
	for _, n := range []int{1, MaxKeys} {
		l := &line{t: t}
		for serial := range uint64(2 * maxSets) {
			l = l.add(keys[0], serial+1, keys[:n]...)
		}
		data := l.entry()
		set, err := OpenManagers(public(keys[:n]...), 2*maxSets-10, tenant, data)
		if err != nil || set.Serial != 2*maxSets || len(set.Trusted()) != n {
			t.Errorf("%d managers: %v", n, err)
		}
		if len(l.Sets) > maxSets || n == 1 && len(l.Sets) < maxSets {
			t.Errorf("%d managers: %d sets", n, len(l.Sets))
		}
	}
}

func TestResign(t *testing.T) {
	a, trusted := signer(t)
	b, others := signer(t)
	for _, body := range all() {
		data := sign(t, a, body)
		again, err := Resign(b, data)
		if err != nil {
			t.Fatal(err)
		}
		if string(sign(t, a, body)) == string(data) || string(data) != string(mustResign(t, a, again)) {
			t.Errorf("%T: what was signed is not the same", body)
		}
		if _, err := Open(trusted, tenant, body.key(), again); !errors.Is(err, seal.ErrUnknownSigner) {
			t.Errorf("%T: %v", body, err)
		}
		e, err := Open(others, tenant, body.key(), again)
		if err != nil || !e.Time.Equal(at) || e.Signer != b.Public().ID() {
			t.Errorf("%T: %v", body, err)
		}
	}
	if _, err := Resign(b, []byte("junk")); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func mustResign(t testing.TB, k *seal.SigningKey, data []byte) []byte {
	t.Helper()
	out, err := Resign(k, data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func FuzzOpenManagers(f *testing.F) {
	a, trusted := signer(f)
	b, _ := signer(f)
	one := (&line{t: f}).add(a, 1, a)
	two := one.add(a, 2, a, b)
	for _, l := range []*line{one, two, two.add(b, 3, b), two.without(0), (&line{t: f}).add(b, 9, b)} {
		f.Add(encode(&l.ManagerChain), uint64(0))
		f.Add(encode(&l.ManagerChain), uint64(2))
	}
	f.Fuzz(func(t *testing.T, body []byte, serial uint64) {
		chain := new(ManagerChain)
		if decode(body, chain) != nil || chain.check() != nil {
			return
		}
		data, err := Sign(a, tenant, at, chain)
		if err != nil {
			return // too long
		}
		set, err := OpenManagers(trusted, serial, tenant, data)
		if err != nil {
			return
		}
		// Whoever is found was named by a, or by somebody whom a named.
		for _, k := range set.Trusted() {
			if !k.Equal(a.Public()) && !k.Equal(b.Public()) {
				t.Errorf("a stranger is a manager: %s", k.ID())
			}
		}
		if set.Serial < serial {
			t.Errorf("serial %d is below %d", set.Serial, serial)
		}
	})
}
