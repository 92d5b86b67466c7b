// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

func TestRenewalInfo(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	ca := open(t, pebble)
	leaf := order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	accounts := f.count(pathAccount)

	own, err := ca.RenewalInfo(t.Context(), leaf)
	if err != nil || own.Start.Before(leaf.NotBefore) || own.End.After(leaf.NotAfter) || own.Poll != 6*time.Hour {
		t.Errorf("%+v, %v", own, err)
	}
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	if err := pebble.SetRenewalInfo(leaf, start, start.Add(time.Hour), "https://ca.example/incident"); err != nil {
		t.Fatal(err)
	}
	set, err := open(t, pebble).RenewalInfo(t.Context(), leaf)
	if err != nil || !set.Start.Equal(start) || !set.End.Equal(start.Add(time.Hour)) || set.Explanation != "https://ca.example/incident" {
		t.Errorf("%+v, %v", set, err)
	}
	if f.count(pathAccount) != accounts {
		t.Error("an account was needed")
	}

	for _, test := range []struct {
		title, answer, header string
		poll                  time.Duration // 0 is an error
	}{
		{"soon", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"}}`, "Retry-After: 1", time.Minute},
		{"in an hour", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"}}`, "Retry-After: 3600", time.Hour},
		{"in a year", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"}}`, "Retry-After: 31536000", 24 * time.Hour},
		{"a script for an explanation", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"},"explanationURL":"javascript:x"}`, "X: y", 6 * time.Hour},
		{"ends before its start", `{"suggestedWindow":{"start":"2026-11-02T00:00:00Z","end":"2026-11-01T00:00:00Z"}}`, "X: y", 0},
		{"empty", `{}`, "X: y", 0},
		{"malformed", `{"suggestedWindow":`, "X: y", 0},
	} {
		f.set("/draft-ietf-acme-ari-03/", sends(200, "application/json", test.answer, test.header))
		got, err := ca.RenewalInfo(t.Context(), leaf)
		if (err == nil) != (test.poll > 0) || got.Poll != test.poll || got.Explanation != "" {
			t.Errorf("%s: %+v, %v", test.title, got, err)
		}
		if errors.Is(err, issuer.ErrNoRenewalInfo) {
			t.Errorf("%s: %v: it may say so later", test.title, err)
		}
	}
	f.set("/draft-ietf-acme-ari-03/", says(503, "serverInternal", "later", "Retry-After: 600"))
	_, err = ca.RenewalInfo(t.Context(), leaf)
	if _, hinted := issuer.RetryAfter(err); !hinted || !strings.Contains(err.Error(), "later") {
		t.Error(err)
	}
	f.set(pathDirectory, changes(func(_ http.Header, d map[string]any) { delete(d, "renewalInfo") }))
	if _, err := open(t, pebble).RenewalInfo(t.Context(), leaf); !errors.Is(err, issuer.ErrNoRenewalInfo) {
		t.Error(err)
	}
	if _, err := ca.RenewalInfo(t.Context(), &x509.Certificate{}); !errors.Is(err, issuer.ErrNoRenewalInfo) {
		t.Error(err)
	}
}

// replacing lets a fault happen to orders that name what they replace.
func replacing(f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body, _ := io.ReadAll(r.Body) // what is cut is no request
		r.Body = io.NopCloser(bytes.NewReader(body))
		var signed struct{ Payload string }
		_ = json.Unmarshal(body, &signed)
		payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
		if bytes.Contains(payload, []byte(`"replaces"`)) {
			f(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// TestReplaces tells the CA which certificate is renewed; one that was replaced
// before is renewed all the same.
func TestReplaces(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	ca := open(t, pebble)
	leaf := order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	var replaced []any
	record := changes(func(_ http.Header, o map[string]any) { replaced = append(replaced, o["replaces"]) })
	f.set(pathNewOrder, record)
	order(t, pebble, ca, issuer.OrderRequest{Replaces: leaf}, "www.example.com")
	if len(replaced) != 1 || replaced[0] == nil {
		t.Errorf("%v", replaced)
	}
	// Pebble would say so, too, but looks at it while it still writes.
	refuse := once(says(http.StatusConflict, "alreadyReplaced", "replaced by another order"))
	f.set(pathNewOrder, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		refuse(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { record(w, r, next) }))
	})
	order(t, pebble, ca, issuer.OrderRequest{Replaces: leaf}, "www.example.com")
	if n := f.count(pathNewOrder); n != 4 || replaced[len(replaced)-1] != nil {
		t.Errorf("%d orders, %v", n, replaced)
	}
	f.set(pathNewOrder, replacing(says(http.StatusInternalServerError, "serverInternal", "could not find an order for the given certificate")))
	order(t, pebble, ca, issuer.OrderRequest{Replaces: leaf}, "www.example.com")
	other := acmetest.Start(t, acmetest.Options{})
	order(t, other, open(t, other), issuer.OrderRequest{Replaces: leaf}, "www.example.com")
}

func TestRevoke(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	ca := open(t, pebble)
	f := before(t, pebble)
	key := newKey(t, "")
	csr, err := issuer.NewRequest(key, []string{"www.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	byAccount := order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	byKey := order(t, pebble, ca, issuer.OrderRequest{CSR: csr})
	stranger := open(t, pebble)
	accounts := f.count(pathAccount)
	if err := ca.Revoke(t.Context(), byAccount, nil, issuer.Superseded); err != nil {
		t.Fatal(err)
	}
	if err := stranger.Revoke(t.Context(), byKey, key, issuer.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	if f.count(pathAccount) != accounts {
		t.Error("a revocation by key needed an account")
	}
	for leaf, want := range map[*x509.Certificate]issuer.Reason{byAccount: issuer.Superseded, byKey: issuer.KeyCompromise} {
		if reason, revoked := pebble.Revoked(leaf); !revoked || reason != int(want) {
			t.Errorf("revoked %v for %d, want %v", revoked, reason, want)
		}
		if err := ca.Revoke(t.Context(), leaf, nil, want); err != nil {
			t.Errorf("once more: %v", err)
		}
	}
	if err := ca.Revoke(t.Context(), byKey, newKey(t, ""), 0); !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "not that of the certificate") {
		t.Error(err)
	}
	fresh := order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	if err := stranger.Revoke(t.Context(), fresh, nil, 0); err == nil {
		t.Error("a stranger revoked it")
	}
	if err := ca.Revoke(t.Context(), fresh, nil, issuer.Reason(7)); !errors.Is(err, issuer.ErrRefused) {
		t.Errorf("%v", err)
	}
	if _, revoked := pebble.Revoked(fresh); revoked {
		t.Error("it is revoked")
	}
}

// TestPreferredChain chooses among the chains of a CA with three roots.
func TestPreferredChain(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{AlternateRoots: 2, ChainLength: 2})
	for i, root := range pebble.Roots() {
		config := configure(t, pebble)
		config.PreferredChain = root.Subject.CommonName
		if i == 0 {
			config.PreferredChain = ""
		}
		ca := open(t, pebble, func(c *acme.Config) { *c = config })
		csr := request(t, "www.example.com")
		chain, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr})
		if err != nil {
			t.Fatal(err)
		}
		last, err := x509.ParseCertificate(chain[len(chain)-1])
		if err != nil {
			t.Fatal(err)
		}
		if last.Issuer.CommonName != root.Subject.CommonName || len(chain) != 3 {
			t.Errorf("%d certificates up to %s, want %s", len(chain), last.Issuer, root.Subject)
		}
	}
	var log strings.Builder
	ca := open(t, pebble, func(c *acme.Config) {
		c.PreferredChain, c.Logger = "Nobody's Root", slog.New(slog.NewJSONHandler(&log, nil))
	})
	order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	var line map[string]any
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil || line["preferred"] != "Nobody's Root" {
		t.Errorf("logged %s", &log)
	}
}
