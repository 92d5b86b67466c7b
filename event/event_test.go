// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/seal"
)

var update = flag.Bool("update", false, "write the golden events that are missing: for a new type")

var at = time.Date(2026, 11, 22, 12, 0, 0, 5, time.UTC)

const tenant = "default"

func spec() Spec {
	return Spec{
		Group: "web", Names: []string{"*.example.com", "example.com"}, Issuer: "internal", KeyType: "ecdsa-p256",
		Lifetime: time.Hour, RenewBefore: "33%", Created: at,
	}
}

// bodies has one of each type, every field set.
func bodies() []Body {
	s := spec()
	return []Body{
		&Certificate{
			Group: "web", ID: "AAAAAAAAAAA", Version: Version{1, 2}, Names: s.Names,
			NotBefore: at, NotAfter: at.Add(time.Hour), Chain: [][]byte{[]byte("leaf"), []byte("ca")}, SealedKey: []byte("sealed"),
			Algorithm: "ECDSA", Client: true,
		},
		&Removal{Group: "web", ID: "AAAAAAAAAAA", Version: Version{1, 3}},
		&State{
			ID: "AAAAAAAAAAA", Spec: s, Version: Version{1, 2}, Removed: true,
			Claim:   &Claim{Generation: 3, Owner: "o", Boot: "b", Reason: ReasonRekey, At: at},
			Failure: &Failure{Attempts: 2, At: at, Next: at.Add(time.Minute), Message: "CA down"},
			History: []Record{
				{Version: Version{1, 1}, At: at, Manager: seal.KeyID{1}, Reason: ReasonNew, Serial: []byte{1, 2}, NotAfter: at},
				{Version: Version{1, 2}, At: at, Manager: seal.KeyID{2}, Reason: ReasonRenewal, Serial: []byte{3}, NotAfter: at},
			},
			Current: []byte("event"),
		},
		&Names{Group: "web", Names: s.Names, Holders: []string{"AAAAAAAAAAA", "BBBBBBBBBBA"}, Newest: &s},
		&Config{Sealed: []byte("sealed")},
		&IssuerState{Name: "internal", Kind: "local", Roots: [][]byte{[]byte("root")}, Sealed: []byte("sealed")},
		&Group{Name: "web", Key: fixedGroupKey()},
		&LogInfo{Epoch: 7},
	}
}

// fleet has one of each of the types that came with joins and receipts.
func fleet() []Body {
	request := JoinRequest{
		ID: "AAAAAAAAAAA", Group: "web", Name: "lb1.example.com", SealKey: fixedGroupKey(), SignKey: bytes.Repeat([]byte{7}, 32), User: "UABC",
	}
	former := []FormerKey{{ID: seal.KeyID{1}, At: at, Reason: ReasonCompromised}}
	return []Body{
		&BusInfo{URLs: []string{"tls://bus.example.com:4222"}, Roots: [][]byte{[]byte("root")}, Sealed: []byte("sealed")},
		&ManagerChain{Sets: [][]byte{[]byte("set")}},
		&ManagerSet{
			Serial: 3, Keys: []ManagerKey{{Name: "first", Key: bytes.Repeat([]byte{7}, 32), Added: at, User: "UABC"}},
			Reached: []Reached{{Scope: "state", Position: "log:7"}},
		},
		&JoinToken{
			ID: "AAAAAAAAAAA", Group: "web", Key: bytes.Repeat([]byte{7}, 32), Created: at, Expires: at.Add(time.Minute),
			Request: []byte("hash"), Used: at,
		},
		&request,
		&Member{JoinRequest: request, Grant: "jwt", Joined: at, Revoked: at, Keys: [][]byte{[]byte("sealed")}, KeyIDs: []seal.KeyID{{1}}},
		&Receipt{
			Group: "web", Member: "AAAAAAAAAAA", Page: 0, Pages: 2, Program: "v1", Started: at, Following: true, Position: "log:7",
			Error: "lost", Skew: -time.Second, Beacon: at, Differs: true, Healed: 2, Budget: at, Keys: []seal.KeyID{{1}, {2}},
			Certificates: []Received{{
				ID: "AAAAAAAAAAA", Version: Version{1, 2}, Removed: true, At: at, Served: at, Lag: -time.Millisecond, Error: "bad",
			}},
			Proofs: [][]byte{[]byte("event")},
		},
		&Beacon{Group: "web", Position: "log:7", Count: 3, Digest: NewDigest(map[string]Version{"AAAAAAAAAAA": {1, 2}}), Every: time.Minute},
		&Group{Name: "web", Key: fixedGroupKey(), Retiring: former, Retired: former, Removed: true},
		&State{ID: "AAAAAAAAAAA", Spec: spec(), Mark: &Mark{Reason: ReasonCompromised, At: at}},
	}
}

// withCAs has one of each of the types and fields that came with public CAs.
func withCAs() []Body {
	s := spec()
	s.Fallbacks, s.Challenge, s.Profile = []string{"second", "third"}, "dns-01", "shortlived"
	const authorization = "abcdefghijklmnopqrstuv.thumbprint"
	return []Body{
		&State{
			ID: "AAAAAAAAAAA", Spec: s, Version: Version{1, 1}, Current: []byte("event"),
			Failure: &Failure{
				Attempts: 1, At: at, Next: at, Message: "no", Issuer: "internal", Order: "https://ca.example.com/order/1",
				Problem: &Problem{
					Type: "urn:ietf:params:acme:error:compound", Title: "t", Detail: "d", Instance: "i", Status: 400, Name: "example.com",
					Parts: []Problem{{Type: "urn:ietf:params:acme:error:caa", Detail: "e", Name: "www.example.com"}},
				},
				RetryAfter: at,
			},
			History: []Record{{Version: Version{1, 1}, At: at, Reason: ReasonCA, Serial: []byte{1}, NotAfter: at, Issuer: "second", Order: "https://ca.example.com/order/0", Revoked: at}},
			Order: &Order{
				Generation: 2, Issuer: "internal", URL: "https://ca.example.com/order/1", Status: "ready", At: at, Expires: at,
				Request: []byte("csr"), Sealed: []byte("sealed"),
			},
			Renewal: &Renewal{Generation: 1, Start: at, End: at.Add(time.Hour), Explanation: "https://ca.example.com/why", Asked: at, Next: at.Add(time.Hour)},
			Hold:    &Hold{Until: at, Reason: "orders"},
			Pause:   &Pause{At: at, Reason: "move"},
		},
		&Challenges{Group: "web", List: []Challenge{
			{Type: ChallengeHTTP01, Name: "example.com", Token: authorization[:22], Authorization: authorization, Expires: at},
			{Type: ChallengeTLSALPN01, Name: "192.0.2.1", Token: authorization[:22], Authorization: authorization, Expires: at},
		}},
		&Budget{Issuer: "internal", Shard: "a", Buckets: []Bucket{{Key: "domain example.com", Full: at}, {Key: "orders", Full: at}}},
		&IssuerControl{Issuer: "internal", Pause: &Pause{At: at, Reason: "move"}},
		&Receipt{Group: "web", Member: "AAAAAAAAAAA", Pages: 1, Challenges: "log:8"},
		&CARecords{Issuer: "internal", Shard: "0", List: 7, Records: []CARecord{
			{Serial: []byte{1, 2}, NotAfter: at, Signed: at, Names: "www.example.com", Revoked: at, Reason: 4}, {Serial: []byte{3}, NotAfter: at},
		}},
	}
}

// all is bodies, fleet and withCAs.
func all() []Body { return slices.Concat(bodies(), fleet(), withCAs()) }

func fixedGroupKey() []byte {
	b, err := os.ReadFile("testdata/golden/group.pub")
	if err != nil {
		panic(err)
	}
	b, err = hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		panic(err)
	}
	return b
}

func signer(t testing.TB) (*seal.SigningKey, []*seal.VerifyKey) {
	t.Helper()
	k, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return k, []*seal.VerifyKey{k.Public()}
}

func sign(t testing.TB, k *seal.SigningKey, b Body) []byte {
	t.Helper()
	data, err := Sign(k, tenant, at, b)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	k, trusted := signer(t)
	for _, b := range all() {
		data := sign(t, k, b)
		for what, open := range map[string]func() (*Event, error){
			"Open":    func() (*Event, error) { return Open(trusted, tenant, b.key(), data) },
			"Trusted": func() (*Event, error) { return Trusted(tenant, data) },
		} {
			e, err := open()
			if err != nil {
				t.Fatalf("%s of %T: %v", what, b, err)
			}
			want := &Event{Tenant: tenant, Key: b.key(), Time: at, Signer: k.Public().ID(), Body: b}
			if d := cmp.Diff(want, e); d != "" {
				t.Errorf("%s of %T (-want +got):\n%s", what, b, d)
			}
		}
		if bytes.Equal(data, sign(t, k, b)) {
			t.Errorf("%T: two events are equal: two writers would take each other's append for their own", b)
		}
	}
}

func TestEveryByteCounts(t *testing.T) {
	k, trusted := signer(t)
	for _, b := range all() {
		data := sign(t, k, b)
		for i := range data {
			for _, bit := range []byte{1, 0x80} {
				bad := bytes.Clone(data)
				bad[i] ^= bit
				if e, err := Open(trusted, tenant, b.key(), bad); err == nil {
					t.Fatalf("%T: byte %d changed, and it is %v", b, i, e)
				}
			}
		}
		for n := range data {
			if _, err := Open(trusted, tenant, b.key(), data[:n]); err == nil {
				t.Fatalf("%T cut to %d bytes was opened", b, n)
			}
		}
		if _, err := Open(trusted, tenant, b.key(), append(data, 0)); err == nil {
			t.Fatalf("%T with a byte more was opened", b)
		}
	}
}

func TestSameIsWhatIsSaidAlone(t *testing.T) {
	one, _ := signer(t)
	other, _ := signer(t)
	sign := func(k *seal.SigningKey, tenant string, b Body) []byte {
		data, err := Sign(k, tenant, at.Add(time.Duration(len(tenant))), b)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for i, b := range bodies() {
		a := sign(one, tenant, b)
		if !Same(a, sign(other, tenant, b)) {
			t.Errorf("%T signed by another is not the same", b)
		}
		if Same(a, sign(one, "other", b)) || Same(a, sign(one, tenant, bodies()[(i+1)%len(bodies())])) || Same(a, nil) {
			t.Errorf("%T is the same as something else", b)
		}
	}
	removal := func(generation uint64) []byte {
		return sign(one, tenant, &Removal{Group: "web", ID: "AAAAAAAAAAA", Version: Version{1, generation}})
	}
	if Same(removal(3), removal(4)) {
		t.Error("two generations are the same")
	}
}

func TestEventsCannotBeMoved(t *testing.T) {
	k, trusted := signer(t)
	c := bodies()[0].(*Certificate)
	data := sign(t, k, c)
	for _, err := range []error{
		second(Open(trusted, "other", c.key(), data)),
		second(Open(trusted, tenant, CertificateKey("api", c.ID), data)),
		second(Open(trusted, tenant, CertificateKey("web", "BBBBBBBBBBA"), data)),
		second(Open(trusted, tenant, StateKey(c.ID), data)),
	} {
		if !errors.Is(err, ErrMoved) {
			t.Errorf("moved: %v", err)
		}
	}
	_, strangers := signer(t)
	if _, err := Open(strangers, tenant, c.key(), data); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Errorf("signed by a stranger: %v", err)
	}
}

func second(_ *Event, err error) error { return err }

func TestSealedKeyIsBoundToItsPlace(t *testing.T) {
	k, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	keys := []*seal.PrivateKey{k}
	c := bodies()[0].(*Certificate)
	if err := c.SealKey(tenant, k.Public(), []byte("key")); err != nil {
		t.Fatal(err)
	}
	if got, err := c.OpenKey(tenant, keys); err != nil || string(got) != "key" {
		t.Fatal(got, err)
	}
	for what, change := range map[string]func(*Certificate){
		"group":      func(c *Certificate) { c.Group = "api" },
		"id":         func(c *Certificate) { c.ID = "BBBBBBBBBBA" },
		"epoch":      func(c *Certificate) { c.Epoch++ },
		"generation": func(c *Certificate) { c.Generation++ },
		"chain":      func(c *Certificate) { c.Chain = [][]byte{[]byte("leafc"), []byte("a")} },
	} {
		moved := *c
		change(&moved)
		if _, err := moved.OpenKey(tenant, keys); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	if _, err := c.OpenKey("other", keys); !errors.Is(err, seal.ErrOpen) {
		t.Error("another tenant:", err)
	}
}

func TestUnknownFieldsAndTypes(t *testing.T) {
	k, trusted := signer(t)
	b := bodies()[0]
	payload := func(more func(*codec)) []byte {
		c := codec{out: encode(b)}
		more(&c)
		return encode(&payload{kind: uint64(b.kind()), tenant: tenant, key: b.key(), body: c.out})
	}
	open := func(p []byte) (*Event, error) {
		data := append([]byte{version, 0, 0, byte(len(p) >> 8), byte(len(p))}, p...)
		return Open(trusted, tenant, b.key(), append(data, k.Sign(signature, p)...))
	}
	if e, err := open(payload(func(c *codec) { c.put(optional|77, []byte("new")) })); err != nil || cmp.Diff(e.Body, b) != "" {
		t.Errorf("an unknown optional field: %v", err)
	}
	if _, err := open(payload(func(c *codec) { c.put(77, []byte("new")) })); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an unknown required field: %v", err)
	}
	newer := bytes.Clone(payload(func(*codec) {}))
	newer[13] = 99 // the type's lowest byte
	if e, err := open(newer); err != nil || e.Body != nil {
		t.Errorf("an unknown type: %v, %v", e, err)
	}
	data := sign(t, k, b)
	data[0] = 2
	if _, err := Open(trusted, tenant, b.key(), data); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a higher version: %v", err)
	}
}

func TestSignRefusesWhatNobodyWouldTake(t *testing.T) {
	k, _ := signer(t)
	good := func() *Certificate { return bodies()[0].(*Certificate) }
	for what, change := range map[string]func(*Certificate){
		"group":      func(c *Certificate) { c.Group = "A B" },
		"id":         func(c *Certificate) { c.ID = "-AAAAAAAAAA" },
		"generation": func(c *Certificate) { c.Generation = 0 },
		"epoch":      func(c *Certificate) { c.Epoch = 0 },
		"chain":      func(c *Certificate) { c.Chain = nil },
		"long chain": func(c *Certificate) { c.Chain = make([][]byte, MaxChain+1) },
		"key":        func(c *Certificate) { c.SealedKey = nil },
		"size":       func(c *Certificate) { c.SealedKey = make([]byte, MaxSize) },
		"names":      func(c *Certificate) { c.Names = make([]string, MaxNames+1) },
	} {
		c := good()
		change(c)
		if _, err := Sign(k, tenant, at, c); err == nil {
			t.Errorf("a bad %s was signed", what)
		}
	}
	if _, err := Sign(k, "_", at, good()); err == nil {
		t.Error("a bad tenant was signed")
	}
	long := strings.Repeat("x", maxText+1)
	for what, change := range map[string]func(*State){
		"name":           func(s *State) { s.Spec.Names = []string{long} },
		"profile":        func(s *State) { s.Spec.Profile = long },
		"order's status": func(s *State) { s.Order = &Order{Generation: 3, Issuer: "x", Status: long} },
		"pause's reason": func(s *State) { s.Pause = &Pause{At: at, Reason: long} },
		"record":         func(s *State) { s.History[0].Order = long },
	} {
		s := bodies()[2].(*State)
		change(s)
		if data, err := Sign(k, tenant, at, s); err == nil {
			_, err = Trusted(tenant, data)
			t.Errorf("a bad %s was signed, which cannot be read: %v", what, err)
		}
	}
}

// TestGolden holds the encoding to what was released: readers must go on
// reading these files.
func TestGolden(t *testing.T) {
	for i, b := range bodies() {
		wantGolden(t, "managers.pub", fmt.Sprintf("v1-%02d", i+1), b)
	}
	for i, b := range fleet() {
		name := fmt.Sprintf("v1-fleet-%02d", i+1)
		wantGolden(t, name+".pub", name, b)
	}
	for i, b := range withCAs() {
		name := fmt.Sprintf("v1-cas-%02d", i+1)
		wantGolden(t, name+".pub", name, b)
	}
}

// wantGolden holds b to a file, signed by the key that stands in another.
func wantGolden(t *testing.T, pub, name string, b Body) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".hex")
	pub = filepath.Join("testdata", "golden", pub)
	if _, err := os.Stat(path); *update && errors.Is(err, fs.ErrNotExist) {
		k, trusted := signer(t)
		if err := seal.WriteVerifyKeyFile(pub, trusted...); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(hex.EncodeToString(sign(t, k, b))+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	trusted, err := seal.ReadVerifyKeyFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(trusted, tenant, b.key(), data)
	if err != nil {
		t.Fatalf("%T: %v", b, err)
	}
	if d := cmp.Diff(b, e.Body); d != "" {
		t.Errorf("%T (-want +got):\n%s", b, d)
	}
}

func TestIDs(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := NewID()
		if err := CheckID(id); err != nil || seen[id] {
			t.Fatal(id, err)
		}
		seen[id] = true
	}
	for _, id := range []string{"", "AAAAAAAAAA", "AAAAAAAAAAAA", "-AAAAAAAAAA", "AAAAAAAAAA=", "AAAAAAAAAA/", "AAAAAAAAAAB", "AAAAAAAAA\nA"} {
		if CheckID(id) == nil {
			t.Errorf("%q is taken for an id", id)
		}
	}
}

func TestNamesKeyIgnoresOrder(t *testing.T) {
	a, b := NamesKey("web", []string{"a", "b"}), NamesKey("web", []string{"b", "a"})
	if a != b {
		t.Error("the order of names matters")
	}
	for _, other := range []string{NamesKey("api", []string{"a", "b"}), NamesKey("web", []string{"ab"}), NamesKey("web", []string{"a"})} {
		if a == other {
			t.Error("two sets of names share a key")
		}
	}
}

// FuzzEnvelope feeds whatever bytes a bus may deliver.
func FuzzEnvelope(f *testing.F) {
	k, trusted := signer(f)
	for _, b := range all() {
		f.Add(sign(f, k, b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 5 && data[0] == version && bytes.Contains(data, k.Sign(signature, data[5:max(5, len(data)-seal.SignatureSize)])) {
			return
		}
		if e, err := Open(trusted, tenant, "state/AAAAAAAAAAA", data); err == nil {
			t.Fatalf("forged: %v", e)
		}
		_, _ = Trusted(tenant, data)
	})
}

// FuzzPayload feeds payloads that are correctly signed. What decodes must
// encode to something that decodes to the same.
func FuzzPayload(f *testing.F) {
	for _, b := range all() {
		f.Add(encode(&payload{kind: uint64(b.kind()), tenant: tenant, key: b.key(), body: encode(b)}))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		first, err := decodePayload(payload)
		if err != nil || first.Body == nil {
			return
		}
		b := encode(first.Body)
		again := newBody(first.Body.kind())
		if err := decode(b, again); err != nil {
			t.Fatalf("%T does not decode again: %v", again, err)
		}
		if !bytes.Equal(b, encode(again)) {
			t.Fatalf("%T changes by being encoded", again)
		}
	})
}
