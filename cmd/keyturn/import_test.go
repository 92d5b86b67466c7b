// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// scriptElsewhere obtains a certificate of 90 days from a CA of its own, and keeps
// it as certbot does.
func scriptElsewhere(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 100, "elsewhere DIR NAME…")
	ca, err := localca.New(localca.Config{Name: "Elsewhere"})
	ts.Check(err)
	key, err := issuer.ECDSAP384.Generate()
	ts.Check(err)
	csr, err := issuer.NewRequest(key, args[1:])
	ts.Check(err)
	ders, err := ca.Issue(context.Background(), csr, 90*24*time.Hour)
	ts.Check(err)
	var chain []byte
	for _, der := range ders {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(os.WriteFile(filepath.Join(dir, "fullchain.pem"), chain, 0o600))
	ts.Check(os.WriteFile(filepath.Join(dir, "root.pem"), ca.RootPEM(), 0o600))
	ts.Check(os.WriteFile(filepath.Join(dir, "privkey.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}
