// SPDX-License-Identifier: Apache-2.0

package localca_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/localca"
)

func crl(t testing.TB, ca *localca.CA, number uint64, revoked ...localca.Revocation) (*x509.RevocationList, []byte) {
	t.Helper()
	der, err := ca.CRL(number, revoked)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(ca.Intermediate()); err != nil {
		t.Fatal(err)
	}
	return list, der
}

func TestCRL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, localca.Config{CRLURL: "http://crl.example/ca.crl"})
		leaf, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
		if got := leaf.CRLDistributionPoints; len(got) != 1 || got[0] != "http://crl.example/ca.crl" {
			t.Errorf("the list is at %v", got)
		}
		now := time.Now()
		list, _ := crl(t, ca, 7, localca.Revocation{Serial: leaf.SerialNumber, At: now, Reason: issuer.KeyCompromise}, localca.Revocation{Serial: big.NewInt(5), At: now})
		if list.Number.Int64() != 7 || !list.ThisUpdate.Equal(now.Add(-time.Minute)) || !list.NextUpdate.Equal(now.Add(localca.DefaultCRLLifetime)) {
			t.Errorf("list %v, from %s to %s", list.Number, list.ThisUpdate, list.NextUpdate)
		}
		entries := list.RevokedCertificateEntries
		if len(entries) != 2 || entries[0].SerialNumber.Cmp(leaf.SerialNumber) != 0 || entries[0].ReasonCode != 1 || !entries[0].RevocationTime.Equal(now) {
			t.Fatalf("%+v", entries)
		}
		if len(entries[1].Extensions) != 0 { // RFC 5280 section 5.3.1: no reason is left out
			t.Error("an unspecified reason is there")
		}
		if list, _ := crl(t, newCA(t, localca.Config{CRLLifetime: time.Hour}), 1); len(list.RevokedCertificateEntries) != 0 || !list.NextUpdate.Equal(now.Add(time.Hour)) {
			t.Errorf("%d entries, until %s", len(list.RevokedCertificateEntries), list.NextUpdate)
		}
		if got := ca.Keep(now); got != now.Add(localca.DefaultCRLLifetime) {
			t.Errorf("a certificate that ends at %s is kept until %s", now, got)
		}
		time.Sleep(localca.DefaultIntermediateLifetime) // in the bubble: no time passes
		if _, err := ca.CRL(8, nil); !errors.Is(err, localca.ErrEnded) {
			t.Error(err)
		}
	})
}

func TestSigned(t *testing.T) {
	ca, other := newCA(t, localca.Config{}), newCA(t, localca.Config{})
	leaf, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
	if err := ca.Signed(leaf); err != nil {
		t.Error(err)
	}
	for _, err := range []error{other.Signed(leaf), ca.Signed(ca.Root()), ca.Signed(ca.Intermediate())} {
		if !errors.Is(err, localca.ErrForeign) {
			t.Error(err)
		}
	}
}

// TestOpenSSLRefusesWhatIsRevoked has openssl read the list of each type of key,
// and a CA with name constraints.
func TestOpenSSLRefusesWhatIsRevoked(t *testing.T) {
	program := openssl(t)
	for _, kt := range []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384, issuer.RSA2048, issuer.Ed25519} {
		t.Run(kt.String(), func(t *testing.T) {
			c := bound
			c.KeyType = kt
			ca := newCA(t, c)
			dir := t.TempDir()
			file := func(name, kind string, der []byte) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			good, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
			bad, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
			_, der := crl(t, ca, 1, localca.Revocation{Serial: bad.SerialNumber, At: time.Now(), Reason: issuer.Superseded})
			list := file("crl.pem", "X509 CRL", der)
			rootDER, err := ca.RootCRL(1)
			if err != nil {
				t.Fatal(err)
			}
			args := []string{
				"verify", "-x509_strict", "-check_ss_sig", "-no-CApath", "-no-CAstore", "-purpose", "sslserver",
				"-CAfile", file("root.pem", "CERTIFICATE", ca.Root().Raw), "-untrusted", file("intermediate.pem", "CERTIFICATE", ca.Intermediate().Raw), "-crl_check_all", "-CRLfile", list, "-CRLfile", file("root.crl", "X509 CRL", rootDER),
			}
			if out, err := exec.CommandContext(t.Context(), program, append(args, file("good.pem", "CERTIFICATE", good.Raw))...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if out, err := exec.CommandContext(t.Context(), program, append(args, file("bad.pem", "CERTIFICATE", bad.Raw))...).CombinedOutput(); err == nil || !strings.Contains(string(out), "certificate revoked") {
				t.Errorf("%v\n%s", err, out)
			}
			out, err := exec.CommandContext(t.Context(), program, "crl", "-in", list, "-noout", "-text", "-crlnumber", "-CAfile", filepath.Join(dir, "intermediate.pem")).CombinedOutput()
			for _, want := range []string{"verify OK", "crlNumber=0x01", "Superseded"} {
				if err != nil || !strings.Contains(string(out), want) {
					t.Errorf("there is no %s: %v\n%s", want, err, out)
				}
			}
		})
	}
}
