// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/issuer/policy"
	"github.com/keyturn/keyturn/seal"
)

// revokedBy makes a new list of what a CA has revoked, verifies it, and returns
// its number and the reasons by serial number.
func revokedBy(t testing.TB, m *Manager, name string) (int64, map[string]int) {
	t.Helper()
	lists, err := m.CRL(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(lists[0])
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseRevocationList(lists[1])
	if err != nil {
		t.Fatal(err)
	}
	ca, err := m.CA(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(list.CheckSignatureFrom(ca.Intermediate), root.CheckSignatureFrom(ca.Root)); err != nil || len(root.RevokedCertificateEntries) > 0 || root.Number.Cmp(list.Number) != 0 {
		t.Fatal(err, len(root.RevokedCertificateEntries), root.Number)
	}
	reasons := make(map[string]int)
	for _, r := range list.RevokedCertificateEntries {
		reasons[r.SerialNumber.String()] = r.ReasonCode
	}
	return list.Number.Int64(), reasons
}

func signed(t *testing.T, m *Manager, lifetime time.Duration, names ...string) *x509.Certificate {
	t.Helper()
	csr, err := issuer.NewRequest(newSigner(t), names)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := m.SignByHand(t.Context(), "", csr, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issuer.Check(chain, csr, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestBuiltInCARevokes what managers renew: the newest, a former one, a removed one.
func TestBuiltInCARevokes(t *testing.T) {
	f, m := newFleet(t)
	first := make1(t, m, "a.example")
	second, err := m.Renew(t.Context(), first.ID, event.ReasonRenewal)
	if err != nil {
		t.Fatal(err)
	}
	if n, list := revokedBy(t, m, "internal"); n != 1 || len(list) != 0 {
		t.Errorf("list %d has %v", n, list)
	}
	other := f.manager(t, "")
	if err := other.Revoke(t.Context(), first.ID, RevokeOptions{Reason: issuer.Superseded, Generation: 1}); err != nil {
		t.Fatal(err)
	}
	if err := m.Revoke(t.Context(), first.ID, RevokeOptions{Remove: true}); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{leafOf(t, first).SerialNumber.String(): 4, leafOf(t, second).SerialNumber.String(): 0}
	if n, list := revokedBy(t, other, ""); n != 2 || fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("list %d has %v, not %v", n, list, want)
	}
	// What is revoked stays so; that the key is known to others is added.
	for i, reason := range []issuer.Reason{issuer.CessationOfOperation, issuer.KeyCompromise, issuer.Superseded} {
		r, err := m.RevokeLeaf(t.Context(), "internal", leafOf(t, first), reason)
		if err != nil || r.ID != first.ID || r.Generation != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if _, list := revokedBy(t, m, ""); list[leafOf(t, first).SerialNumber.String()] != []int{4, 1, 1}[i] {
			t.Errorf("after %s: %v", reason, list)
		}
	}
	ca, err := m.CA(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if ca.Name != "internal" || ca.List != 5 || len(ca.Records) != 2 || ca.Records[0].Names != "a.example" || !ca.Records[0].Signed.IsZero() {
		t.Errorf("%+v", ca)
	}
}

func TestBuiltInCARevokesByKey(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	holder := f.manager(t, "")
	holder.keys = func(string) ([]*seal.PrivateKey, error) { return []*seal.PrivateKey{f.group}, nil }
	if err := holder.Revoke(t.Context(), c.ID, RevokeOptions{ByKey: true, Reason: issuer.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	if _, list := revokedBy(t, m, ""); list[leafOf(t, c).SerialNumber.String()] != 1 || len(list) != 1 {
		t.Error(list)
	}
	i, err := m.issuer(t.Context(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.(issuer.Revoker).Revoke(t.Context(), leafOf(t, c), newSigner(t), 0); err == nil || !strings.Contains(err.Error(), "the key is not the certificate's") {
		t.Error(err)
	}
}

func TestSignByHand(t *testing.T) {
	f, m := newFleet(t)
	leaf := signed(t, m, time.Hour, "hand.example", "10.0.0.1")
	ca, err := f.manager(t, "").CA(t.Context(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	if len(ca.Records) != 1 || ca.Records[0].Names != "hand.example and 1 more" || !ca.Records[0].NotAfter.Equal(leaf.NotAfter) || !ca.Records[0].Revoked.IsZero() || ca.Records[0].Signed.IsZero() {
		t.Fatalf("%+v", ca.Records)
	}
	if _, list := revokedBy(t, m, ""); len(list) != 0 {
		t.Error(list)
	}
	r, err := m.RevokeSerial(t.Context(), "", leaf.SerialNumber.Bytes(), issuer.KeyCompromise)
	if err != nil || r.ID != "" || r.Issuer != "internal" {
		t.Fatalf("%+v, %v", r, err)
	}
	// What the CA signed, and nobody remembers.
	i, err := m.issuer(t.Context(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(newSigner(t), []string{"lost.example"})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := i.Issue(t.Context(), csr, 0)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	if _, err := m.RevokeSerial(t.Context(), "", lost.SerialNumber.Bytes(), 0); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "knows no certificate with the serial number") {
		t.Error(err)
	}
	if _, err := m.RevokeSerial(t.Context(), "", nil, 0); !errors.As(err, &invalid) {
		t.Error(err)
	}
	if _, err := m.RevokeLeaf(t.Context(), "", lost, 0); err != nil {
		t.Error(err)
	}
	if _, list := revokedBy(t, m, ""); len(list) != 2 || list[leaf.SerialNumber.String()] != 1 {
		t.Error(list)
	}
	brought := elsewhere(t, newSigner(t), "c.example")
	foreign, err := x509.ParseCertificate(brought.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.RevokeLeaf(t.Context(), "", foreign, 0); !errors.Is(err, localca.ErrForeign) {
		t.Error(err)
	}
}

// TestRevokedAtOnce: managers that revoke and list at once lose nothing, and no
// two lists have one number.
func TestRevokedAtOnce(t *testing.T) {
	f, m := newFleet(t)
	const managers, each = 4, 5
	var wg sync.WaitGroup
	var mu sync.Mutex
	numbers := make(map[int64]bool)
	for i := range managers {
		one := f.manager(t, "")
		wg.Go(func() {
			for j := range each {
				leaf := signed(t, one, 0, fmt.Sprintf("a%d-%d.example", i, j))
				if _, err := one.RevokeSerial(t.Context(), "", leaf.SerialNumber.Bytes(), 0); err != nil {
					t.Error(err)
				}
				n, list := revokedBy(t, one, "")
				if _, ok := list[leaf.SerialNumber.String()]; !ok {
					t.Errorf("list %d lacks what was revoked before", n)
				}
				mu.Lock()
				if numbers[n] {
					t.Errorf("list %d was made twice", n)
				}
				numbers[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if n, list := revokedBy(t, m, ""); n != managers*each+1 || len(list) != managers*each {
		t.Errorf("list %d has %d", n, len(list))
	}
}

// TestRevokedUntilItsEnd: a certificate that has ended is on one more list, and
// then forgotten.
func TestRevokedUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := newFleet(t)
		leaf := signed(t, m, time.Hour, "a.example")
		long := signed(t, m, 80*24*time.Hour, "b.example")
		for _, l := range []*x509.Certificate{leaf, long} {
			if _, err := m.RevokeSerial(t.Context(), "", l.SerialNumber.Bytes(), 0); err != nil {
				t.Fatal(err)
			}
		}
		for _, test := range []struct {
			pass time.Duration
			want int
		}{{0, 2}, {2 * time.Hour, 2}, {localca.DefaultCRLLifetime - 90*time.Minute, 2}, {time.Hour, 1}} {
			time.Sleep(test.pass) // in the bubble: no time passes
			if n, list := revokedBy(t, m, ""); len(list) != test.want {
				t.Errorf("list %d has %d, not %d", n, len(list), test.want)
			}
		}
		if _, err := m.RevokeLeaf(t.Context(), "", leaf, 0); err == nil || !strings.Contains(err.Error(), "nobody believes it any more") {
			t.Error(err)
		}
		b, err := m.builtIn(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.updateRecords(t.Context(), shardOf(leaf.SerialNumber.Bytes()), func(r *event.CARecords) error {
			if slices.ContainsFunc(r.Records, func(r event.CARecord) bool { return r.Names == "a.example" }) {
				t.Error("what has ended is still there")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFullRecords: what cannot be remembered is not signed by hand, and there is room
// left to revoke. What managers renew is not bound by it.
func TestFullRecords(t *testing.T) {
	_, m := newFleet(t)
	leaf := make1(t, m, "a.example")
	var invalid *InvalidError
	if err := full(t.Context(), t, m, maxByHand-1); err != nil {
		t.Error(err)
	}
	if err := full(t.Context(), t, m, maxByHand); !errors.As(err, &invalid) {
		t.Error(err)
	}
	if _, err := m.RevokeLeaf(t.Context(), "", leafOf(t, make1(t, m, "b.example")), 0); err != nil {
		t.Error(err)
	}
	if err := full(t.Context(), t, m, event.MaxCARecords); !errors.As(err, &invalid) {
		t.Error(err)
	}
	if err := m.Revoke(t.Context(), leaf.ID, RevokeOptions{}); !errors.As(err, &invalid) {
		t.Error(err)
	}
	if _, err := m.Renew(t.Context(), leaf.ID, event.ReasonRenewal); err != nil {
		t.Error(err)
	}
}

const policies = `
default_issuer: internal
issuers:
  internal:
    type: local
    policy: {dns: [.example, example.net], groups: [default]}
  clients:
    type: local
    policy: {usages: client}
  bound:
    type: local
    permitted: {dns: example.org}
  any:
    type: local
`

func TestPolicyOfTheBuiltInCA(t *testing.T) {
	f, m := newFleet(t)
	if err := m.AddGroup(t.Context(), "other", f.group.Public()); err != nil {
		t.Fatal(err)
	}
	f.configure(t, m, policies)
	c := make1(t, m, "a.example")
	for want, r := range map[string]Request{
		`issuer "internal": the issuer refuses this request: the CA's policy does not allow "b.test": it allows .example, example.net`:              {Names: []string{"b.test"}},
		`the CA's policy does not allow certificates of group "other": it allows default`:                                                           {Names: []string{"b.example"}, Group: "other"},
		`issuer "clients": the issuer refuses this request: the CA's policy does not allow certificates for the usage server: it allows client`:     {Names: []string{"b.example"}, Issuer: "clients"},
		`issuer "bound": the issuer refuses this request: "b.example" is not among the DNS names that the name constraints in the CA's certificate`: {Names: []string{"b.example"}, Issuer: "bound"},
	} {
		var invalid *InvalidError
		if _, err := m.Make(t.Context(), r); !errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	// What is managed has to be allowed by another configuration, too.
	_, at, err := m.ConfigText(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for old, now := range map[string]string{"dns: [.example, example.net]": "dns: b.example", "groups: [default]": "groups: [other]"} {
		text := strings.Replace(policies, old, now, 1)
		if _, err := m.UpdateConfig(t.Context(), []byte(text), at); err == nil || !strings.Contains(err.Error(), "certificate "+c.ID) || !strings.Contains(err.Error(), "does not allow") {
			t.Errorf("%s: %v", now, err)
		}
	}
	// An issuer that stands in is asked only when it is its turn, and refuses then.
	stand, err := m.Make(t.Context(), Request{Names: []string{"c.example"}, Group: "other", Issuer: "any", Fallbacks: []string{"internal"}})
	if err != nil {
		t.Fatal(err)
	}
	with := means{asked: "internal"}
	if with.issuer, err = m.issuer(t.Context(), "internal"); err != nil {
		t.Fatal(err)
	}
	d, err := newDraft(&stand.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.order(t.Context(), &keeper{latest: stand}, with, d); !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), `group "other"`) {
		t.Error(err)
	}
}

func TestWhichBuiltInCA(t *testing.T) {
	f, m := newFleet(t)
	f.configure(t, m, policies)
	if ca, err := m.CA(t.Context(), ""); err != nil || ca.Name != "internal" || ca.Policy.Groups[0] != "default" {
		t.Errorf("%+v, %v", ca, err)
	}
	if ca, err := m.CA(t.Context(), "bound"); err != nil || ca.Permitted.String() != "example.org" || !ca.Intermediate.PermittedDNSDomainsCritical {
		t.Errorf("%+v, %v", ca, err)
	}
	const acme = "  le: {type: acme, directory: letsencrypt-staging, terms_agreed: true}\n"
	f.configure(t, m, strings.Replace(policies, "default_issuer: internal", "default_issuer: le", 1)+acme)
	if ca, err := m.CA(t.Context(), ""); err != nil || ca.Name != "any" {
		t.Errorf("%+v, %v", ca, err)
	}
	var invalid *InvalidError
	for name, want := range map[string]string{"le": `issuer "le" is of type acme`, "nobody": `there is no issuer "nobody"`} {
		if _, err := m.CA(t.Context(), name); !errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.configure(t, m, "issuers:\n"+acme)
	if _, err := m.CA(t.Context(), ""); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "keyturn ca init") {
		t.Error(err)
	}
}

func TestInitCA(t *testing.T) {
	_, m := newFleet(t)
	ca, err := m.InitCA(t.Context(), "web", &config.LocalCA{Name: "Web", Permitted: policy.Names{DNS: []string{"example"}}})
	if err != nil || ca.Name != "web" || ca.Permitted.String() != "example" || !strings.HasPrefix(ca.Root.Subject.CommonName, "Web Root CA ") {
		t.Fatalf("%+v, %v", ca, err)
	}
	shared, _, err := m.shared(t.Context())
	if err != nil || shared.DefaultIssuer != "internal" || len(shared.Issuers) != 2 || time.Duration(shared.Issuers["internal"].Local.Lifetime) != 90*24*time.Hour {
		t.Errorf("%+v, %v", shared, err)
	}
	if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Issuer: "web"}); err != nil {
		t.Error(err)
	}
	var invalid *InvalidError
	if _, err := m.InitCA(t.Context(), "web", nil); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "is there already") {
		t.Error(err)
	}
	// What is configured, and was not made yet.
	if _, err := m.InitCA(t.Context(), "internal", &config.LocalCA{Name: "X"}); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "give no settings here") {
		t.Error(err)
	}
	if ca, err := m.InitCA(t.Context(), "internal", nil); err != nil || ca.Name != "internal" {
		t.Errorf("%+v, %v", ca, err)
	}
	if _, err := m.InitCA(t.Context(), "bad", &config.LocalCA{Permitted: policy.Names{DNS: []string{"*"}}}); err == nil || !strings.Contains(err.Error(), "issuers.bad.permitted") {
		t.Error(err)
	}
}

// TestInitCAAtOnce: of managers that make different CAs at once, none is lost, nor is
// there a configuration before them.
func TestInitCAAtOnce(t *testing.T) {
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{log: membus.New(), identity: id}
	m := f.manager(t, "")
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	const managers = 5
	var wg sync.WaitGroup
	for i := range managers {
		one := f.manager(t, "")
		wg.Go(func() {
			if _, err := one.InitCA(t.Context(), fmt.Sprintf("ca%d", i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := m.Issuers(t.Context()); err != nil || len(list) != managers {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRevokedStaysRevoked: what a manager wrote who is none any more is signed anew
// by those who stay, so that nothing that is revoked comes back.
func TestRevokedStaysRevoked(t *testing.T) {
	f, m := newFleet(t)
	b := f.as(t, f.other(t, m, "b", ""), f.identity.Signing.Public())
	leaf := signed(t, b, 0, "a.example")
	if _, err := b.RevokeSerial(t.Context(), "", leaf.SerialNumber.Bytes(), issuer.Superseded); err != nil {
		t.Fatal(err)
	}
	if err := m.RevokeSigner(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if n, list := revokedBy(t, m, ""); n != 1 || list[leaf.SerialNumber.String()] != 4 {
		t.Errorf("list %d has %v", n, list)
	}
}
