// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/manager"
)

// revoke revokes what is managed, and what is signed by hand.
func (c *child) revoke() error {
	states, err := c.states()
	if err != nil {
		return err
	}
	if a := states["a.ca.example"]; a.Generation == 1 && a.Mark == nil {
		if err := c.m.Revoke(c.ctx, a.ID, manager.RevokeOptions{Reason: issuer.Superseded}); err != nil {
			return err
		}
	}
	if b := states["b.ca.example"]; b != nil {
		if err := c.m.Revoke(c.ctx, b.ID, manager.RevokeOptions{Reason: issuer.CessationOfOperation, Remove: true}); err != nil {
			return err
		}
	}
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		return err
	}
	csr, err := issuer.NewRequest(key, []string{"hand.example"})
	if err != nil {
		return err
	}
	chain, err := c.m.SignByHand(c.ctx, "ca", csr, time.Hour)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if _, err := c.m.RevokeSerial(c.ctx, "ca", leaf.SerialNumber.Bytes(), issuer.KeyCompromise); err != nil {
		return err
	}
	lists, err := c.m.CRL(c.ctx, "ca")
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(lists[0])
	if err != nil || len(list.RevokedCertificateEntries) < 3 {
		return fmt.Errorf("the list has %d entries, %w", len(list.RevokedCertificateEntries), err)
	}
	return c.pass()
}

// bringAlong makes the files of a certificate that was made elsewhere.
func bringAlong(w *world) {
	ca, err := localca.New(localca.Config{})
	must(w.t, err)
	key, err := issuer.KeyType("").Generate()
	must(w.t, err)
	csr, err := issuer.NewRequest(key, []string{"a.elsewhere.example"})
	must(w.t, err)
	chain, err := ca.Issue(w.t.Context(), csr, time.Hour)
	must(w.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(w.t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	must(w.t, os.WriteFile(filepath.Join(w.dir, "elsewhere.pem"), text, durable.PrivateFile))
}

// importOne imports it. What a killed import left without a certificate is removed
// first, as the command's error says.
func (c *child) importOne() error {
	text, err := os.ReadFile(filepath.Join(c.dir, "elsewhere.pem"))
	if err != nil {
		return err
	}
	block, rest := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	r := manager.ImportRequest{Request: manager.Request{Issuer: "ca"}, Key: key.(crypto.Signer)}
	for block, rest = pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		r.Chain = append(r.Chain, block.Bytes)
	}
	for {
		_, err := c.m.Import(c.ctx, r)
		var there *manager.ExistsError
		switch {
		case !errors.As(err, &there):
			return err
		case !there.Unmade:
			return c.pass()
		}
		if err := c.m.Remove(c.ctx, there.ID); err != nil {
			return err
		}
	}
}
