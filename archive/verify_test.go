// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

const id = "AAAAAAAAAAA"

// removal is the event of a removed certificate, which is the shortest there is.
func removal(t testing.TB, by *seal.SigningKey, group string, generation uint64) bus.Entry {
	return signed(t, by, &event.Removal{Group: group, ID: id, Version: event.Version{Epoch: 2, Generation: generation}})
}

func state(t testing.TB, by *seal.SigningKey, current bus.Entry, generation uint64) bus.Entry {
	return signed(t, by, &event.State{
		ID: id, Spec: event.Spec{Group: "web", Names: []string{"a.example"}, Issuer: "internal", KeyType: "ecdsa-p256"},
		Version: event.Version{Epoch: 2, Generation: generation}, Removed: true, Current: current.Data,
	})
}

func chain(t testing.TB, by *seal.SigningKey, sets ...*event.ManagerSet) bus.Entry {
	t.Helper()
	c := new(event.ManagerChain)
	for _, s := range sets {
		if err := c.Add(by, "default", head.Time, s); err != nil {
			t.Fatal(err)
		}
	}
	return signed(t, by, c)
}

func set(serial uint64, keys ...*seal.SigningKey) *event.ManagerSet {
	s := &event.ManagerSet{Serial: serial}
	for _, k := range keys {
		s.Keys = append(s.Keys, event.ManagerKey{Name: "m", Key: k.Public().Bytes()})
	}
	return s
}

func TestVerify(t *testing.T) {
	first, second, stranger := newKey(t), newKey(t), newKey(t)
	trusted := []*seal.VerifyKey{first.Public()}
	managers := chain(t, first, set(1, first), set(2, first, second))
	gone := removal(t, second, "web", 7)
	good := []bus.Entry{managers, signed(t, second, &event.LogInfo{Epoch: 4}), gone, state(t, first, gone, 7)}

	// What a manager vouches for whom the file's own list names is verified.
	s, err := archive.Verify(bytes.NewReader(write(t, second, good...)), trusted)
	if err != nil {
		t.Fatal(err)
	}
	if s.Signer != second.Public().ID() || s.Removed != 1 || s.Certificates != 0 || s.MaxEpoch != 4 || s.Behind != 0 || s.Superseded != 0 ||
		s.Entries["conf"] != 2 || s.Entries["group"] != 1 || s.Entries["state"] != 1 || len(s.Managers) != 2 || !s.Newest.Equal(head.Time) {
		t.Errorf("%+v", s)
	}

	// The copy may be behind, and an entry stand there again.
	behind := []bus.Entry{managers, managers, removal(t, first, "web", 6), state(t, first, gone, 7)}
	if s, err = archive.Verify(bytes.NewReader(write(t, first, behind...)), trusted); err != nil || s.Behind != 1 || s.Superseded != 1 {
		t.Errorf("%+v, %v", s, err)
	}

	moved := gone
	moved.Key = "group/other/" + id
	for name, c := range map[string]struct {
		by      *seal.SigningKey
		entries []bus.Entry
		want    string
	}{
		"a stranger's seal":       {stranger, good, "not trusted"},
		"a stranger's entry":      {first, []bus.Entry{managers, signed(t, stranger, &event.LogInfo{Epoch: 9})}, "not trusted"},
		"a stranger's list":       {first, []bus.Entry{chain(t, stranger, set(1, stranger))}, "not trusted"},
		"no list":                 {second, good[1:], "not trusted"},
		"an entry of another key": {first, []bus.Entry{managers, moved}, "signed for another place"},
		"a copy without state":    {first, []bus.Entry{managers, gone}, "its state does not"},
		"a copy that is newer":    {first, []bus.Entry{managers, removal(t, first, "web", 8), state(t, first, gone, 7)}, "replicas have 2.8"},
		"another copy":            {first, []bus.Entry{managers, removal(t, first, "web", 7), state(t, first, gone, 7)}, "not what its state says"},
		"another group's copy":    {first, []bus.Entry{managers, removal(t, first, "db", 7), state(t, first, gone, 7)}, `group "db" has it`},
		"a state with a foreign event": {
			first, []bus.Entry{managers, state(t, first, removal(t, stranger, "web", 7), 7)}, "the event in state/" + id,
		},
	} {
		_, err := archive.Verify(bytes.NewReader(write(t, c.by, c.entries...)), trusted)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	if _, err := archive.Verify(bytes.NewReader(write(t, first, good...)[:400]), trusted); !errors.Is(err, archive.ErrCut) {
		t.Errorf("a cut file: %v", err)
	}
	if _, err := archive.Verify(bytes.NewReader(write(t, first, good...)), nil); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Errorf("with nobody trusted: %v", err)
	}
}
