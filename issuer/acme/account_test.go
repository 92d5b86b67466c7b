// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

// TestFirstUse has many orders at once make one account.
func TestFirstUse(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	ca := open(t, pebble)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := ca.Issue(t.Context(), request(t, fmt.Sprintf("n%d.example.com", i)), 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.count(pathAccount); n != 2 { // looked for, and made
		t.Errorf("%d requests for accounts", n)
	}
	if ca.Known().URL == "" {
		t.Error("the account is not known afterwards")
	}
}

// TestRegister finds the account by its key, in another process too, and brings its
// contact up to date.
func TestRegister(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	config := configure(t, pebble)
	config.Contact = []string{"a@example.com"}
	first := registered(t, open(t, pebble, func(c *acme.Config) { *c = config }))
	again := registered(t, open(t, pebble, func(c *acme.Config) { *c = config }))
	if first.URL == "" || first.URL != again.URL || again.Key != config.Account.Key || config.Account.URL != "" {
		t.Errorf("%v, then %v; configured %v", first, again, config.Account)
	}
	if n := f.count("my-account"); n != 0 {
		t.Errorf("an account whose contact is the same was changed %d times", n)
	}
	config.Contact = []string{"mailto:b@example.com"}
	registered(t, open(t, pebble, func(c *acme.Config) { *c = config }))
	if n := f.count("my-account"); n != 1 {
		t.Errorf("an account with another contact was changed %d times", n)
	}
	registered(t, open(t, pebble, func(c *acme.Config) { *c = config }))
	if n := f.count("my-account"); n != 1 {
		t.Errorf("an account was changed again, %d times", n)
	}
}

func TestTermsAndBinding(t *testing.T) {
	key := base64.RawURLEncoding.EncodeToString([]byte("a secret of thirty-two bytes ...."))
	free := acmetest.Start(t, acmetest.Options{})
	bound := acmetest.Start(t, acmetest.Options{EAB: map[string]string{"kid-1": key}})
	for _, test := range []struct {
		title  string
		pebble *acmetest.CA
		change func(*acme.Config)
		says   string // "" is no error
	}{
		{"terms not agreed to", free, func(c *acme.Config) { c.TermsAgreed = false }, "set terms_agreed: true"},
		{"no binding", bound, func(*acme.Config) {}, "external account binding"},
		{"bound", bound, func(c *acme.Config) { c.EAB = &acme.EAB{KeyID: "kid-1", HMACKey: key + "="} }, ""},
		{"bound to another", bound, func(c *acme.Config) { c.EAB = &acme.EAB{KeyID: "kid-2", HMACKey: key} }, "making the account at pebble"},
		{"bad contact", free, func(c *acme.Config) { c.Contact = []string{"tel:1"} }, "the issuer's contact"},
	} {
		t.Run(test.title, func(t *testing.T) {
			ca := open(t, test.pebble, test.change)
			_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com")})
			if test.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), key) {
				t.Errorf("%v; want it refused, with %q", err, test.says)
			}
		})
	}
}

func newAccountKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRollover(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	config := configure(t, pebble)
	ca := open(t, pebble, func(c *acme.Config) { *c = config })
	order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	url, next := ca.Known().URL, newAccountKey(t)
	if err := ca.Rollover(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if now := ca.Known(); now.Key != next || now.URL != url || now.Next != nil {
		t.Errorf("after a roll-over it is %+v", now)
	}
	order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
	old := open(t, pebble, func(c *acme.Config) { *c = config; c.Account = &acme.Account{Key: config.Account.Key, URL: url} })
	if _, err := old.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com")}); err == nil {
		t.Error("the old key still orders")
	}
}

// TestRolloverCrash dies before the CA has heard of the roll-over, and after it has
// made it: both times the account is the same one afterwards, with the next key.
func TestRolloverCrash(t *testing.T) {
	for _, test := range []struct {
		title string
		fault fault
	}{
		{"before", says(http.StatusInternalServerError, "serverInternal", "down")},
		{"after", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(discard{}, r)
			says(http.StatusInternalServerError, "serverInternal", "lost")(w, r, next)
		}},
	} {
		t.Run(test.title, func(t *testing.T) {
			pebble := acmetest.Start(t, acmetest.Options{})
			f := before(t, pebble)
			config := configure(t, pebble)
			begun := *registered(t, open(t, pebble, func(c *acme.Config) { *c = config }))
			begun.Next = newAccountKey(t)
			stored, err := begun.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			f.set(pathRollover, test.fault)
			config.Account = &acme.Account{Key: begun.Key, URL: begun.URL}
			if err := open(t, pebble, func(c *acme.Config) { *c = config }).Rollover(t.Context(), begun.Next); err == nil {
				t.Fatal("no error")
			}
			f.set(pathRollover, nil)
			if config.Account, err = acme.ParseAccount(stored); err != nil {
				t.Fatal(err)
			}
			ca := open(t, pebble, func(c *acme.Config) { *c = config })
			got := registered(t, ca)
			if !same(got.Key, begun.Next) || got.URL != begun.URL || got.Next != nil {
				t.Errorf("settled as %+v", got)
			}
			order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
		})
	}
}

func same(a, b crypto.Signer) bool { return a.Public().(*ecdsa.PublicKey).Equal(b.Public()) }

// TestRolloverRefused keeps the key that it has. Pebble itself says yes and does
// nothing where the key is another account's.
func TestRolloverRefused(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	before(t, pebble).set(pathRollover, sends(http.StatusConflict, "text/plain", "the key is in use"))
	one, two := open(t, pebble), open(t, pebble)
	taken := registered(t, two).Key
	account := registered(t, one)
	if err := one.Rollover(t.Context(), taken); err == nil {
		t.Fatal("an account got another's key")
	}
	if now := one.Known(); now.Key != account.Key || now.URL != account.URL || now.Next != nil {
		t.Errorf("afterwards it is %+v", now)
	}
	// A crash in the middle of this does not lead to the other account.
	config := configure(t, pebble)
	config.Account = &acme.Account{Key: account.Key, URL: account.URL, Next: taken}
	three := open(t, pebble, func(c *acme.Config) { *c = config })
	if got, err := three.Register(t.Context()); err == nil {
		t.Errorf("it is %+v now", got)
	}
	if got := registered(t, three); got.URL != account.URL || got.Next != nil {
		t.Errorf("it is %+v now", got)
	}
}

func TestDeactivate(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	config := configure(t, pebble)
	ca := open(t, pebble, func(c *acme.Config) { *c = config })
	if err := ca.Deactivate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for title, f := range map[string]func() error{
		"ordering": func() error {
			_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com")})
			return err
		},
		"registering": func() error {
			_, err := open(t, pebble, func(c *acme.Config) { *c = config }).Register(t.Context())
			return err
		},
	} {
		if err := f(); !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "another account") {
			t.Errorf("%s with it: %v", title, err)
		}
	}
}

func TestMarshalAccount(t *testing.T) {
	for _, kt := range []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384, issuer.RSA2048} {
		a := &acme.Account{Key: newKey(t, kt), URL: "https://ca.example/1", Next: newKey(t, issuer.ECDSAP256)}
		text, err := a.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		b, err := acme.ParseAccount(text)
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Marshal()
		if err != nil || string(again) != string(text) {
			t.Errorf("%s: %v", kt, err)
		}
		for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s %q", a, a, *a, a, *a), encoded(t, a), logged(a)} {
			if strings.Contains(shown, "Key") || strings.Contains(shown, "D:") || !strings.Contains(shown, a.URL) {
				t.Errorf("it prints as %s", shown)
			}
		}
	}
	if _, err := (&acme.Account{Key: newKey(t, issuer.Ed25519)}).Marshal(); err == nil {
		t.Error("an account with a key that CAs do not take")
	}
	for _, bad := range []string{"", "{}", `{"key":"AAAA"}`, `{"key":"secret","more":1}`} {
		if a, err := acme.ParseAccount([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, %v", bad, a, err)
		}
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func logged(v any) string {
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("it", "account", v)
	return b.String()
}

// TestALostAccountIsNotMadeAgain: its key may be one that others have.
func TestALostAccountIsNotMadeAgain(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	ca := open(t, pebble, func(c *acme.Config) { c.Account.URL = pebble.Directory() + "/account/1" })
	_, err := ca.Register(t.Context())
	if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "another account") {
		t.Error(err)
	}
	if n := f.count(pathAccount); n != 1 {
		t.Errorf("%d requests for accounts: it was looked for, and nothing else", n)
	}
}
