// SPDX-License-Identifier: Apache-2.0

package http01_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/http01"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func challenge(order string) solver.Challenge {
	token := strings.Repeat("t", 30) + order
	return solver.Challenge{Type: solver.HTTP01, Name: "www.example.com", Token: token, KeyAuthorization: token + ".thumbprint"}
}

// ask asks a handler, without a network.
func ask(h http.Handler, method, path string) (code int, body string) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://www.example.com/", nil)
	r.URL.Path = path
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestHandler(t *testing.T) {
	var h http01.Handler
	site := h.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "site") }))
	one, two := challenge("1"), challenge("2")
	for _, path := range []string{"/", http01.Path, http01.Path + one.Token} {
		if _, body := ask(site, "GET", path); body != "site" {
			t.Errorf("%s without challenges: %q", path, body)
		}
		if code, _ := ask(&h, "GET", path); code != http.StatusNotFound {
			t.Errorf("%s without challenges: %d", path, code)
		}
	}
	doneOne, err := h.Solve(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	doneAgain, err := h.Solve(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	doneTwo, err := h.Solve(t.Context(), two)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		http01.Path + one.Token:             one.KeyAuthorization,
		http01.Path + two.Token:             two.KeyAuthorization,
		http01.Path + one.Token + "/":       "site",
		http01.Path + "x/../" + one.Token:   "site",
		"/x" + http01.Path + one.Token:      "site",
		http01.Path + one.Token[1:]:         "site",
		http01.Path:                         "site",
		strings.ToUpper(http01.Path) + "x":  "site",
		"/.well-known/acme-challenge":       "site",
		http01.Path + one.Token + "?x":      "site",
		"/.well-known/other/" + one.Token:   "site",
		http01.Path + "../../" + one.Token:  "site",
		http01.Path + one.Token + "\x00":    "site",
		http01.Path + one.KeyAuthorization:  "site",
		http01.Path + "." + one.Token:       "site",
		http01.Path + "/" + one.Token:       "site",
		http01.Path + strings.ToUpper("TT"): "site",
	} {
		if _, body := ask(site, "GET", path); body != want {
			t.Errorf("%q: %q, want %q", path, body, want)
		}
	}
	if _, body := ask(site, "POST", http01.Path+one.Token); body != "site" {
		t.Errorf("POST: %q", body)
	}
	if code, _ := ask(site, "HEAD", http01.Path+one.Token); code != http.StatusOK {
		t.Errorf("HEAD: %d", code)
	}
	_ = doneOne(t.Context())
	_ = doneOne(t.Context()) // counts once
	if _, body := ask(site, "GET", http01.Path+one.Token); body != one.KeyAuthorization {
		t.Error("it is needed still")
	}
	_ = doneAgain(t.Context())
	if _, body := ask(site, "GET", http01.Path+one.Token); body != "site" {
		t.Error("it is answered still")
	}
	h.Set(map[string]string{one.Token: "set"})
	_ = doneTwo(t.Context())
	if _, body := ask(site, "GET", http01.Path+one.Token); body != "set" {
		t.Errorf("after Set: %q", body)
	}
}

func TestWhatIsNoChallengeOfOurs(t *testing.T) {
	escape, other := challenge("1"), challenge("1")
	escape.Token = "../../../../../../../../tmp/escaped"
	other.Type = solver.TLSALPN01
	dir := t.TempDir()
	for what, s := range map[string]solver.Solver{
		"handler": new(http01.Handler), "server": &http01.Server{Addr: freeAddr(t)}, "webroot": &http01.Webroot{Dir: dir},
	} {
		for _, c := range []solver.Challenge{escape, other} {
			if _, err := s.Solve(t.Context(), c); err == nil {
				t.Errorf("%s: %+v", what, c)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// freeAddr is an address that nobody listens on just now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// fetch asks for an answer over the network.
func fetch(t *testing.T, addr, token string) (string, error) {
	t.Helper()
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+http01.Path+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if w.StatusCode != http.StatusOK {
		return "", errors.New(w.Status)
	}
	return string(body), err
}

func TestServer(t *testing.T) {
	s := &http01.Server{Addr: freeAddr(t)}
	one, two := challenge("1"), challenge("2")
	for range 2 { // the port is free in between
		if _, err := fetch(t, s.Addr, one.Token); err == nil {
			t.Fatal("somebody listens without a challenge")
		}
		doneOne, err := s.Solve(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		doneTwo, err := s.Solve(t.Context(), two)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []solver.Challenge{one, two} {
			if got, err := fetch(t, s.Addr, c.Token); err != nil || got != c.KeyAuthorization {
				t.Fatal(got, err)
			}
		}
		if err := errors.Join(doneOne(t.Context()), doneOne(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got, err := fetch(t, s.Addr, two.Token); err != nil || got != two.KeyAuthorization {
			t.Error(got, err)
		}
		if _, err := fetch(t, s.Addr, one.Token); err == nil {
			t.Error("answered after its end")
		}
		if err := doneTwo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerWithoutItsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &http01.Server{Addr: l.Addr().String()}
	if _, err := s.Solve(t.Context(), challenge("1")); err == nil || !strings.Contains(err.Error(), "another program serves there") {
		t.Error(err)
	}
}

func TestWebroot(t *testing.T) {
	dir := t.TempDir()
	w := &http01.Webroot{Dir: dir}
	one := challenge("1")
	path := filepath.Join(dir, http01.Path, one.Token)
	for range 2 {
		done, err := w.Solve(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		again, err := w.Solve(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		if _, body := ask(http.FileServer(http.Dir(dir)), "GET", http01.Path+one.Token); body != one.KeyAuthorization {
			t.Errorf("a file server answers %q", body)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
			t.Errorf("%v, %v", info, err)
		}
		if err := errors.Join(done(t.Context()), done(t.Context())); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error("it is needed still: ", err)
		}
		if err := again(context.Background()); err != nil {
			t.Error(err)
		}
		left, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	// Somebody else has removed it already.
	done, err := w.Solve(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := (&http01.Webroot{Dir: filepath.Join(dir, "none")}).Solve(t.Context(), one); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// What leads out of the directory is not followed, wherever it stands.
func TestWebrootStaysInside(t *testing.T) {
	outside := t.TempDir()
	c := challenge("1")
	for _, link := range []string{".well-known", ".well-known/acme-challenge"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
		if _, err := (&http01.Webroot{Dir: dir}).Solve(t.Context(), c); err == nil {
			t.Errorf("%s leads out, and was followed", link)
		}
	}
	// A link in the place of the file itself is replaced, not written through.
	dir := t.TempDir()
	target := filepath.Join(outside, "target")
	if err := os.MkdirAll(filepath.Join(dir, http01.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, http01.Path, c.Token)); err != nil {
		t.Fatal(err)
	}
	done, err := (&http01.Webroot{Dir: dir}).Solve(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(outside)
	if text, _ := os.ReadFile(target); err != nil || len(left) != 1 || string(text) != "mine" {
		t.Errorf("outside: %v, %q, %v", left, text, err)
	}
}
