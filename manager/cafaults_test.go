// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"maps"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

const faultyCAs = `
default_issuer: bound
issuers:
  bound: {type: local, permitted: {dns: example}, excluded: {dns: secret.example}}
  strict: {type: local, policy: {dns: .example, groups: web}}
  clients: {type: local, policy: {usages: client}}
  brief: {type: local, intermediate_lifetime: 1h}
`

// TestCAFaultPage holds the table of docs/localca.md to what is said: each row quotes
// a message that one of these faults ends in, and each fault has its row.
func TestCAFaultPage(t *testing.T) {
	page, err := os.ReadFile("../docs/localca.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What happens when\n")
	table, _, _ = strings.Cut(table, "\n## ")
	_, table, _ = strings.Cut(table, "|---|---|---|\n")
	var told []string
	for row := range strings.Lines(strings.TrimSpace(table)) {
		_, row, _ = strings.Cut(row, "`")
		row, _, _ = strings.Cut(row, "`")
		told = append(told, row)
	}
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		f.configure(t, m, faultyCAs)
		faults := caFaults(t, f, m)
		for _, message := range told {
			fault := faults[message]
			if fault == nil {
				t.Errorf("no fault is there for the row %q", message)
				continue
			}
			if err := fault(); err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%q: it says %v", message, err)
			}
		}
		if want := slices.Sorted(maps.Keys(faults)); !slices.Equal(slices.Sorted(slices.Values(told)), want) {
			t.Errorf("the page tells of %q, want %q", told, want)
		}
	})
}

// caFaults brings about what can go wrong, by what is said.
func caFaults(t *testing.T, f *fleet, m *Manager) map[string]func() error {
	ctx := t.Context()
	mk := func(issuer string, names ...string) func() error {
		return func() error {
			_, err := m.Make(ctx, Request{Names: names, Issuer: issuer})
			return err
		}
	}
	by := func(name string, csr *x509.CertificateRequest) error {
		_, err := m.SignByHand(ctx, name, csr, 0)
		return err
	}
	return map[string]func() error{
		"is not among the DNS names that the name constraints in the CA's certificate permit": mk("bound", "a.test"),
		"is excluded by the name constraint":                                                  mk("bound", "a.secret.example"),
		"the CA's policy does not allow": func() error {
			csr, err := issuer.NewRequest(newSigner(t), []string{"a.test"})
			if err != nil {
				return err
			}
			return by("strict", csr)
		},
		"the CA's policy does not allow certificates of group":      mk("strict", "a.example"),
		"the CA's policy does not allow certificates for the usage": mk("clients", "a.example"),
		"the request is not signed by the key it is for": func() error {
			csr, err := issuer.NewRequest(newSigner(t), []string{"a.example"})
			if err != nil {
				return err
			}
			der := bytes.Clone(csr.Raw)
			der[len(der)-1] ^= 1
			if csr, err = x509.ParseCertificateRequest(der); err != nil {
				return err
			}
			return by("bound", csr)
		},
		"subject alternative names; 1 to 100 are allowed": func() error {
			return by("bound", requestOf(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example"}}))
		},
		"is asked for: this CA signs for TLS servers": func() error {
			value, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 4}})
			if err != nil {
				return err
			}
			return by("bound", requestOf(t, x509.CertificateRequest{
				IPAddresses: []net.IP{{10, 0, 0, 1}}, ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: value}},
			}))
		},
		"the CA's intermediate certificate has ended": func() error {
			if _, err := m.CA(ctx, "brief"); err != nil {
				return err
			}
			time.Sleep(2 * time.Hour) // in the bubble: no time passes
			return mk("brief", "a.example")()
		},
		"a CA's keys cannot change: configure another issuer": func() error {
			_, at, err := m.ConfigText(ctx)
			if err != nil {
				return err
			}
			_, err = m.UpdateConfig(ctx, []byte(strings.Replace(faultyCAs, "bound: {", "bound: {key: ed25519, ", 1)), at)
			return err
		},
		"knows no certificate with the serial number": func() error {
			_, err := m.RevokeSerial(ctx, "", []byte{1, 2}, 0)
			return err
		},
		"another CA signed the certificate": func() error {
			foreign, err := x509.ParseCertificate(elsewhere(t, newSigner(t), "c.example").Chain[0])
			if err != nil {
				return err
			}
			_, err = m.RevokeLeaf(ctx, "", foreign, 0)
			return err
		},
		"nobody believes it any more": func() error {
			leaf := signed(t, m, time.Minute, "a.example")
			time.Sleep(time.Hour) // in the bubble: no time passes
			_, err := m.RevokeLeaf(ctx, "", leaf, 0)
			return err
		},
		"remembers as many certificates as it can": func() error { return full(ctx, t, m, maxByHand) },
	}
}

// full has the default CA remember so many certificates in each shard, and signs one
// more by hand.
func full(ctx context.Context, t *testing.T, m *Manager, most int) error {
	b, err := m.builtIn(ctx, "")
	if err != nil {
		return err
	}
	for i, shard := range shards {
		err := b.updateRecords(ctx, shard, func(r *event.CARecords) error {
			r.Records = nil
			for n := range most {
				serial := new(big.Int).SetUint64(uint64(n+1)<<4 + uint64(i))
				r.Records = append(r.Records, event.CARecord{Serial: serial.Bytes(), NotAfter: time.Now().Add(time.Hour)})
			}
			slices.SortFunc(r.Records, func(a, b event.CARecord) int { return bySerial(a, b.Serial) })
			return nil
		})
		if err != nil {
			return err
		}
	}
	csr, err := issuer.NewRequest(newSigner(t), []string{"a.example"})
	if err != nil {
		return err
	}
	_, err = m.SignByHand(ctx, "", csr, 0)
	return err
}

func requestOf(t *testing.T, template x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, newSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
