// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/seal"
)

// elsewhere is a certificate that another CA made.
func elsewhere(t *testing.T, key crypto.Signer, names ...string) ImportRequest {
	t.Helper()
	ca, err := localca.New(localca.Config{Name: "Elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(key, names)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Issue(t.Context(), csr, 30*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ImportRequest{Chain: chain, Key: key}
}

func newSigner(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestImport(t *testing.T) {
	f, m := newFleet(t)
	key := newSigner(t)
	r := elsewhere(t, key, "a.example", "*.a.example", "192.0.2.1")
	c, err := m.Import(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Spec.Names) != 3 || c.Spec.KeyType != "ecdsa-p384" || c.Spec.Issuer != "internal" || c.Generation != 1 {
		t.Errorf("imported as %+v %s", c.Spec, c.Version)
	}
	if r := c.History[0]; r.Reason != event.ReasonImported || r.Issuer != "" || r.Order != "" || r.NotAfter.IsZero() || len(r.Serial) == 0 {
		t.Errorf("its record: %+v", r)
	}
	copied := f.copyOf(t, c.ID).(*event.Certificate)
	der, err := copied.OpenKey(DefaultTenant, []*seal.PrivateKey{f.group})
	if err != nil {
		t.Fatal(err)
	}
	served, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil || !key.Public().(*ecdsa.PublicKey).Equal(served.(crypto.Signer).Public()) {
		t.Error("another key is served", err)
	}
	if !slices.EqualFunc(copied.Chain, r.Chain, bytes.Equal) {
		t.Error("another chain is served")
	}
	renewed, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
	if err != nil || renewed.Generation != 2 || renewed.History[1].Issuer != "internal" {
		t.Fatalf("renewed: %+v %v", renewed, err)
	}
	leaf, err := renewed.Leaf()
	if err != nil || leaf.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P384() || key.Public().(*ecdsa.PublicKey).Equal(leaf.PublicKey) {
		t.Error("not a new key of the same type", err)
	}
	var exists *ExistsError
	if _, err := m.Import(t.Context(), elsewhere(t, newSigner(t), "192.0.2.1", "a.example", "*.a.example")); !errors.As(err, &exists) || exists.ID != c.ID {
		t.Errorf("imported again: %v", err)
	}
}

// TestAnOddKeyIsImported is of a key that Keyturn does not make: it is served, and
// the next one is of the default type.
func TestAnOddKeyIsImported(t *testing.T) {
	_, m := newFleet(t)
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Import(t.Context(), elsewhere(t, key, "a.example"))
	if err != nil || c.Spec.KeyType != "ecdsa-p256" || c.Certificate.Algorithm != "RSA" {
		t.Fatal(c, err)
	}
}

func TestBadImportsLeaveNothing(t *testing.T) {
	_, m := newFleet(t)
	good := elsewhere(t, newSigner(t), "a.example")
	other := elsewhere(t, newSigner(t), "a.example")
	named := good
	named.Names = []string{"a.example"}
	unknown := good
	unknown.Issuer = "nonesuch"
	for what, r := range map[string]ImportRequest{
		"nothing":           {},
		"no key":            {Chain: good.Chain},
		"names":             named,
		"unknown issuer":    unknown,
		"another's key":     {Chain: good.Chain, Key: newSigner(t)},
		"broken chain":      {Chain: [][]byte{good.Chain[0], other.Chain[1]}, Key: good.Key},
		"no certificate":    {Chain: [][]byte{[]byte("certificate")}, Key: good.Key},
		"expired":           old(t),
		"intermediate only": {Chain: good.Chain[1:], Key: good.Key},
	} {
		if c, err := m.Import(t.Context(), r); err == nil {
			t.Errorf("%s: imported as %s", what, c.ID)
		}
	}
	if list, err := m.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("left behind: %d, %v", len(list), err)
	}
	make1(t, m, "a.example") // nobody holds the names
}

// old is a certificate that has ended.
func old(t *testing.T) ImportRequest {
	t.Helper()
	key := newSigner(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return ImportRequest{Chain: [][]byte{der}, Key: key}
}

func TestIssuers(t *testing.T) {
	_, m := newFleet(t)
	_, at, err := m.ConfigText(t.Context())
	if err == nil {
		_, err = m.UpdateConfig(t.Context(), []byte("default_issuer: second\n"+sharedConfig+"  second:\n    type: local\n"), at)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.issuer(t.Context(), "internal"); err != nil {
		t.Fatal(err)
	}
	list, err := m.Issuers(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if i := list[0]; i.Name != "internal" || i.Type != "local" || i.Default || !i.Used || i.Pause != nil {
		t.Errorf("%+v", i)
	}
	if i := list[1]; i.Name != "second" || !i.Default || i.Used {
		t.Errorf("%+v", i)
	}
	control := &event.IssuerControl{Issuer: "internal", Pause: &event.Pause{At: time.Now(), Reason: "maintenance"}}
	if _, err := m.append(t.Context(), bus.Position{}, control); err != nil {
		t.Fatal(err)
	}
	if list, err = m.Issuers(t.Context()); err != nil || list[0].Pause == nil || list[0].Pause.Reason != "maintenance" {
		t.Errorf("%+v %v", list, err)
	}
}
