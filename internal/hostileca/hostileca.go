// SPDX-License-Identifier: Apache-2.0

// Package hostileca has what tests of issuers need of a CA that was taken over, or is
// broken: certificates that are not what was asked for, answers that are none, and the
// verdict on what an issuer makes of them.
package hostileca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/localca"
)

// Lifetime is that of all certificates.
const Lifetime = time.Hour

// Certificates are answers to a request, right and wrong ones, in DER.
type Certificates struct {
	// CSR is what is asked for: www.example.com.
	CSR *x509.CertificateRequest
	// Leaf is the right answer, signed by Intermediate, which Root has signed.
	Leaf, Intermediate, Root []byte
	// OtherKey and OtherName are of the same CA, and answers to other requests.
	OtherKey, OtherName []byte
	// ClientLeaf answers CSR, and is good for clients alone; ClientIntermediate has
	// signed it.
	ClientLeaf, ClientIntermediate []byte
	// Stranger is the intermediate of a CA that has signed none of them.
	Stranger []byte
}

// Make makes them.
func Make(t testing.TB) *Certificates {
	t.Helper()
	ca, stranger, clients := newCA(t), newCA(t), newCA(t, "client")
	key := issuertest.Key(t, issuer.ECDSAP256)
	c := &Certificates{CSR: request(t, key, "www.example.com"), Intermediate: ca.Intermediate().Raw, Root: ca.Root().Raw}
	c.Leaf = sign(t, ca, c.CSR)
	c.OtherKey = sign(t, ca, request(t, issuertest.Key(t, issuer.ECDSAP256), "www.example.com"))
	c.OtherName = sign(t, ca, request(t, key, "www.example.net"))
	c.ClientLeaf, c.ClientIntermediate = sign(t, clients, c.CSR), clients.Intermediate().Raw
	c.Stranger = stranger.Intermediate().Raw
	return c
}

func newCA(t testing.TB, usages ...string) *localca.CA {
	t.Helper()
	ca, err := localca.New(localca.Config{Usages: usages})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func request(t testing.TB, key crypto.Signer, name string) *x509.CertificateRequest {
	t.Helper()
	csr, err := issuer.NewRequest(key, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func sign(t testing.TB, ca *localca.CA, csr *x509.CertificateRequest) []byte {
	t.Helper()
	chain, err := ca.Issue(t.Context(), csr, Lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return chain[0]
}

// PEM encodes certificates, one after the other.
func PEM(ders ...[]byte) string {
	var text strings.Builder
	for _, der := range ders {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return text.String()
}

// Judge has an issuer asked for CSR, and its answer looked at by [issuer.Check] as of a
// time after now. The answer is right, and has a chain of two, if want is ""; else there
// has to be an error with want in it, which is short, on one line, and without secret.
func (c *Certificates) Judge(t testing.TB, ca issuer.Issuer, after time.Duration, want, secret string) {
	t.Helper()
	chain, err := ca.Issue(t.Context(), c.CSR, 0)
	if err == nil {
		_, err = issuer.Check(chain, c.CSR, time.Now().Add(after))
	}
	switch {
	case want == "" && err != nil:
		t.Fatal(err)
	case want == "":
		if len(chain) != 2 {
			t.Errorf("the chain has %d certificates, want two", len(chain))
		}
	case err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("the error is %v; want %q in it", err, want)
	case secret != "" && strings.Contains(err.Error(), secret), strings.ContainsAny(err.Error(), "\n\x1b"), len(err.Error()) > maxError:
		t.Errorf("%q", err)
	}
}

// maxError is what an error may have at most, in bytes.
const maxError = 3000

// Say answers with a text.
func Say(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text) // a failure shows at the client
	}
}

// Endless begins an answer that goes on until the client has gone.
func Endless(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, begin) // the next one fails, too
		block := bytes.Repeat([]byte("a"), 1<<16)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
}

// Hang answers nothing, not even when the client goes: an answer could come before the
// connection is closed.
func Hang(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// Shown is all that printing, logging and encoding show of a value.
func Shown(t testing.TB, v any) string {
	t.Helper()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v) + string(text) + log.String()
}
