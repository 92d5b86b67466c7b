// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func newToken(t testing.TB) *Token {
	t.Helper()
	k, _ := signer(t)
	token := NewToken()
	token.Tenant, token.Group, token.Expires = tenant, "web", at
	token.Managers, token.Serial = [][]byte{k.Public().Bytes()}, 3
	token.URLs, token.Roots, token.Grant = []string{"tls://bus.example.com:4222"}, [][]byte{[]byte("root")}, "jwt"
	return token
}

func TestTokens(t *testing.T) {
	token := newToken(t)
	text := token.Encode()
	wrapped := " \n" + text[:40] + "\r\n  " + text[40:] + "\n"
	for _, s := range []string{text, wrapped} {
		got, err := ParseToken(s)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(token, got, cmpopts.IgnoreUnexported(Token{})); d != "" {
			t.Error(d)
		}
		if !bytes.Equal(got.secret, token.secret) {
			t.Error("another secret")
		}
	}
	if bytes.Equal(NewToken().secret, NewToken().secret) {
		t.Error("two tokens have one secret")
	}
}

// TestTokensDeriveKeysOfTheirOwn: the same from the text, and for each use
// another.
func TestTokensDeriveKeysOfTheirOwn(t *testing.T) {
	token := newToken(t)
	again, err := ParseToken(token.Encode())
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	same, err := again.SigningKey()
	if err != nil || !same.Public().Equal(key.Public()) {
		t.Error("the text has another key", err)
	}
	user, err := token.User()
	if err != nil || len(user) != 32 || bytes.Equal(user, token.secret) {
		t.Errorf("the user's secret has %d bytes, %v", len(user), err)
	}
	other, err := newToken(t).SigningKey()
	if err != nil || other.Public().Equal(key.Public()) {
		t.Error("two tokens have one key", err)
	}
}

func TestCutAndChangedTokens(t *testing.T) {
	text := newToken(t).Encode()
	bad := map[string]string{
		"nothing": "", "the mark alone": tokenPrefix, "another mark": "ktj2." + text[len(tokenPrefix):],
		"no base64": tokenPrefix + "!!!!", "too long": tokenPrefix + strings.Repeat("A", 1<<20), "twice": text + text,
	}
	for i := range text {
		bad[fmt.Sprintf("cut at %d", i)] = text[:i]
		changed := []byte(text)
		if changed[i]++; text[i] == 'z' || text[i] == 'Z' || text[i] == '9' {
			changed[i] = 'A'
		}
		bad[fmt.Sprintf("changed at %d", i)] = string(changed)
	}
	for what, without := range map[string]func(*Token){
		"no managers":  func(k *Token) { k.Managers = nil },
		"a bad key":    func(k *Token) { k.Managers = [][]byte{[]byte("short")} },
		"no addresses": func(k *Token) { k.URLs = nil },
		"no secret":    func(k *Token) { k.secret = nil },
		"a bad tenant": func(k *Token) { k.Tenant = "../etc" },
		"a bad group":  func(k *Token) { k.Group = "../etc" },
		"a bad id":     func(k *Token) { k.ID = "../../etc/x" },
	} {
		token := newToken(t)
		without(token)
		bad[what] = token.Encode()
	}
	for what, s := range bad {
		_, err := ParseToken(s)
		if !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && len(s) > 20 && strings.Contains(err.Error(), s[len(tokenPrefix):20]) {
			t.Errorf("%s: the error shows the text: %v", what, err)
		}
	}
}

// TestTokensAreNotPrinted by any verb, log or encoder.
func TestTokensAreNotPrinted(t *testing.T) {
	token := newToken(t)
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%10.3s"} {
		if verb == "%T %v" {
			fmt.Fprintf(&out, verb, token, token)
			continue
		}
		fmt.Fprintf(&out, verb+" ", token)
	}
	fmt.Fprint(&out, struct{ T *Token }{token}, []*Token{token}, *token, struct{ T Token }{*token}, fmt.Errorf("with %v", token))
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("joining", "token", token, slog.Group("g", "token", *token))
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"token": token, "list": []*Token{token}}); err != nil {
		t.Fatal(err)
	}
	shown := out.String()
	if n := strings.Count(shown, "[redacted]"); n < 15 {
		t.Errorf("%d times redacted:\n%s", n, shown)
	}
	for what, secret := range map[string]string{
		"the secret": string(token.secret), "the secret in hex": fmt.Sprintf("%x", token.secret), "the secret in numbers": fmt.Sprint(token.secret),
		"the text": token.Encode()[:30], "the address": "bus.example.com", "the grant": "jwt",
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("%s is shown:\n%s", what, shown)
		}
	}
}

func FuzzToken(f *testing.F) {
	token := newToken(f)
	f.Add(token.Encode())
	f.Add(token.Encode()[:100])
	token.Grant, token.Roots = "", nil
	f.Add(" " + token.Encode() + "\n")
	f.Add(tokenPrefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseToken(token.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(token, again, cmp.AllowUnexported(Token{})); d != "" {
			t.Error(d)
		}
	})
}
