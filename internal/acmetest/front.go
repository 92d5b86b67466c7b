// SPDX-License-Identifier: Apache-2.0

package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/db"
)

func (c *CA) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	handler := c.handler
	c.mu.Unlock()
	handler.ServeHTTP(w, r)
}

// Intercept puts a handler in front of the CA, and of those that were put there
// before: to answer instead of it, or to change what it answers. It counts for
// requests from now on.
func (c *CA) Intercept(f func(next http.Handler) http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = f(c.handler)
}

// Finalized returns how many orders the CA let be finalised: those for exactly
// these names, or all of them.
func (c *CA) Finalized(names ...string) int {
	c.counted.mu.Lock()
	defer c.counted.mu.Unlock()
	if len(names) > 0 {
		return c.counted.orders[setOf(names)]
	}
	all := 0
	for _, n := range c.counted.orders {
		all += n
	}
	return all
}

// SetRenewalInfo sets what the CA says of when to renew a certificate. It says so
// in a Retry-After of Pebble's own, six hours.
func (c *CA) SetRenewalInfo(leaf *x509.Certificate, start, end time.Time, explanation string) error {
	type window struct {
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
	}
	info, err := json.Marshal(struct {
		Window      window `json:"suggestedWindow"`
		Explanation string `json:"explanationURL,omitempty"`
	}{window{start.UTC(), end.UTC()}, explanation})
	if err != nil {
		return err
	}
	return c.SetRenewalAnswer(leaf, string(info))
}

// SetRenewalAnswer is SetRenewalInfo with the very text that is answered.
func (c *CA) SetRenewalAnswer(leaf *x509.Certificate, answer string) error {
	body, err := json.Marshal(map[string]string{
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})),
		"ariResponse": answer,
	})
	if err != nil {
		return err
	}
	r := httptest.NewRequest(http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	r.Header.Set("User-Agent", "acmetest") // Pebble wants one
	w := httptest.NewRecorder()
	if c.management.ServeHTTP(w, r); w.Code != http.StatusOK {
		return fmt.Errorf("setting the renewal information of %x: %s", leaf.SerialNumber, w.Body)
	}
	return nil
}

// Revoked says whether the CA has revoked a certificate, and why.
func (c *CA) Revoked(leaf *x509.Certificate) (reason int, revoked bool) {
	w := httptest.NewRecorder()
	c.management.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/cert-status-by-serial/"+leaf.SerialNumber.Text(16), nil))
	var answer struct {
		Status string
		Reason int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		return 0, false
	}
	return answer.Reason, answer.Status == "Revoked"
}

// A counter counts the orders that were finalised, and lets Pebble make an order only
// while it makes no other and shows no authorisation: where it looks for authorisations
// to use again, it can wait for one of these, and that for it, for ever, with all others
// behind them. It lets it make or show only one account at a time: Pebble completes a
// new one after it has stored it, where whoever has the same key finds it.
type counter struct {
	next     http.Handler
	store    *db.MemoryStore
	making   sync.RWMutex
	accounts sync.Mutex
	mu       sync.Mutex
	orders   map[string]int // by setOf(names); guarded by mu
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/order-plz":
		c.making.Lock()
		defer c.making.Unlock()
		c.settle(r)
	case strings.HasPrefix(r.URL.Path, "/authZ/"):
		c.making.RLock()
		defer c.making.RUnlock()
	case r.URL.Path == "/sign-me-up", strings.HasPrefix(r.URL.Path, "/my-account/"):
		c.accounts.Lock()
		defer c.accounts.Unlock()
	}
	if !strings.HasPrefix(r.URL.Path, "/finalize-order/") {
		c.next.ServeHTTP(w, r)
		return
	}
	seen := &recorder{ResponseWriter: w, status: http.StatusOK}
	c.next.ServeHTTP(seen, r)
	var order struct{ Identifiers []struct{ Value string } }
	if seen.status != http.StatusOK || json.Unmarshal(seen.body.Bytes(), &order) != nil {
		return
	}
	var names []string
	for _, id := range order.Identifiers {
		names = append(names, id.Value)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders[setOf(names)]++
}

// settle comes after what Pebble still wrote about the certificate that a new order
// is to replace: it looks at that without the lock that guards it.
func (c *counter) settle(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return // Pebble says so
	}
	var signed struct{ Payload string }
	var order struct{ Replaces string }
	if json.Unmarshal(body, &signed) != nil {
		return
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil || json.Unmarshal(payload, &order) != nil {
		return
	}
	_, serial, _ := strings.Cut(order.Replaces, ".")
	number, err := base64.RawURLEncoding.DecodeString(serial)
	if err != nil {
		return
	}
	if replaced, err := c.store.GetOrderByIssuedSerial(hex.EncodeToString(number)); err == nil {
		replaced.Lock()
		defer replaced.Unlock()
	}
}

func setOf(names []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ",")
}

// A recorder keeps what passes through it.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}
