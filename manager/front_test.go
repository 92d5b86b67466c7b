// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmetest"
)

// Pebble's paths.
const (
	pathNewOrder = "/order-plz"
	pathOrder    = "/my-order/"
	pathAuthz    = "/authZ/"
	pathFinalize = "/finalize-order/"
	pathCert     = "/certZ/"
)

// The faults that other tests have, too.
var says, sends, hangs = acmetest.Says, acmetest.Sends, acmetest.Hangs

type fault = acmetest.Fault

// A front stands before a CA and has one fault at a time.
type front struct {
	mu    sync.Mutex
	path  string // guarded by mu; how the path begins
	fault fault  // guarded by mu; nil: none
	seen  int    // guarded by mu; how many requests met it
}

func before(ca *acmetest.CA) *front {
	f := new(front)
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			broken := f.fault
			if !strings.HasPrefix(r.URL.Path, f.path) {
				broken = nil
			}
			if broken != nil {
				f.seen++
			}
			f.mu.Unlock()
			if broken == nil {
				next.ServeHTTP(w, r)
				return
			}
			broken(w, r, next)
		})
	})
	return f
}

// set has a fault at a path; nil ends it.
func (f *front) set(path string, broken fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.path, f.fault = path, broken
}

func (f *front) met() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// stays has what is looked at stay in a state instead of coming to another, with
// a Retry-After if that is not "".
func stays(status, instead, retryAfter string) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		seen := httptest.NewRecorder()
		next.ServeHTTP(seen, r)
		answer := make(map[string]any)
		if err := json.Unmarshal(seen.Body.Bytes(), &answer); err != nil {
			panic(err)
		}
		if answer["status"] == instead {
			answer["status"] = status
		}
		maps.Copy(w.Header(), seen.Header())
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(seen.Code)
		_ = json.NewEncoder(w).Encode(answer) // the client may be gone
	}
}

// signs has the CA sign something else than it was asked to: the leaf as changed,
// for the given key if that is not nil, by an issuer that signs that alone.
func signs(t *testing.T, change func(leaf *x509.Certificate), key any) fault {
	by := newSigner(t)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-300 * day), NotAfter: time.Now().Add(300 * day),
	}
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		seen := httptest.NewRecorder()
		next.ServeHTTP(seen, r)
		block, _ := pem.Decode(seen.Body.Bytes())
		if block == nil {
			panic("no certificate came")
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(err)
		}
		public := leaf.PublicKey
		if key != nil {
			public = key
		}
		change(leaf)
		maps.Copy(w.Header(), seen.Header())
		w.Header().Del("Link") // to other chains, which are good
		for _, made := range []struct {
			cert   *x509.Certificate
			public any
		}{{leaf, public}, {root, by.Public().(*ecdsa.PublicKey)}} {
			der, err := x509.CreateCertificate(rand.Reader, made.cert, root, made.public, by)
			if err != nil {
				panic(err)
			}
			_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // the client may be gone
		}
	}
}
