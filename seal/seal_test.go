// SPDX-License-Identifier: Apache-2.0

package seal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/seal"
)

func newKey(t testing.TB) *seal.PrivateKey {
	t.Helper()
	k, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedTextOpensOnlyAsItWasSealed(t *testing.T) {
	k, other := newKey(t), newKey(t)
	sealed, err := k.Public().Seal([]byte("aad"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len("secret")+seal.Overhead {
		t.Fatalf("overhead is %d, not %d", len(sealed)-len("secret"), seal.Overhead)
	}
	got, err := seal.Open([]*seal.PrivateKey{other, k}, []byte("aad"), sealed)
	if err != nil || string(got) != "secret" {
		t.Fatal(got, err)
	}
	if _, err := seal.Open([]*seal.PrivateKey{k}, []byte("moved"), sealed); !errors.Is(err, seal.ErrOpen) {
		t.Error("other associated data:", err)
	}
	if _, err := seal.Open([]*seal.PrivateKey{other}, []byte("aad"), sealed); !errors.Is(err, seal.ErrNoKey) {
		t.Error("other key:", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := seal.Open([]*seal.PrivateKey{k}, []byte("aad"), bad); err == nil {
			t.Fatalf("byte %d changed and it still opens", i)
		}
	}
	for n := range sealed {
		if _, err := seal.Open([]*seal.PrivateKey{k}, []byte("aad"), sealed[:n]); err == nil {
			t.Fatalf("cut to %d bytes and it still opens", n)
		}
	}
}

func TestDerivedKeysAreOfOneKeyInfoAndSalt(t *testing.T) {
	k, other := newKey(t), newKey(t)
	derive := func(k *seal.PrivateKey, info, salt string) string {
		t.Helper()
		b, err := k.Derive(info, []byte(salt))
		if err != nil || len(b) != 32 {
			t.Fatal(len(b), err)
		}
		return string(b)
	}
	want := derive(k, "info", "salt")
	if derive(k, "info", "salt") != want {
		t.Error("not the same again")
	}
	for _, got := range []string{derive(other, "info", "salt"), derive(k, "infos", "alt"), derive(k, "info", "sal2")} {
		if got == want {
			t.Error("two derived keys are equal")
		}
	}
}

func TestSignatureHoldsContextMessageAndSigner(t *testing.T) {
	k, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := seal.GenerateSigningKey()
	sig := k.Sign("ctx", []byte("message"))
	if len(sig) != seal.SignatureSize {
		t.Fatal(len(sig))
	}
	trusted := []*seal.VerifyKey{stranger.Public(), k.Public()}
	if id, err := seal.Verify(trusted, "ctx", []byte("message"), sig); err != nil || id != k.Public().ID() {
		t.Fatal(id, err)
	}
	for what, err := range map[string]error{
		"other context": second(seal.Verify(trusted, "ctx2", []byte("message"), sig)),
		"other message": second(seal.Verify(trusted, "ctx", []byte("messagE"), sig)),
		"cut signature": second(seal.Verify(trusted, "ctx", []byte("message"), sig[:70])),
	} {
		if !errors.Is(err, seal.ErrSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, trusted := range [][]*seal.VerifyKey{nil, {stranger.Public()}} {
		if _, err := seal.Verify(trusted, "ctx", []byte("message"), sig); !errors.Is(err, seal.ErrUnknownSigner) {
			t.Errorf("trusting %d others: %v", len(trusted), err)
		}
	}
}

func second(_ seal.KeyID, err error) error { return err }

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "identity.pem")
	other, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	id.Managers = []*seal.VerifyKey{other.Public()}
	if err := seal.CreateIdentityFile(path, id); err != nil {
		t.Fatal(err)
	}
	if err := seal.CreateIdentityFile(path, id); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("an identity was replaced: %v", err)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Fatal(fi.Mode())
	}
	got, err := seal.ReadIdentityFile(path)
	if err != nil || !got.Signing.Public().Equal(id.Signing.Public()) || !got.Sealing[0].Equal(id.Sealing[0]) {
		t.Fatal("identity read back differs", err)
	}
	if len(got.Managers) != 1 || !got.Managers[0].Equal(other.Public()) {
		t.Fatalf("%d managers read back", len(got.Managers))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := seal.ParseIdentity(text); err != nil || !got.Signing.Public().Equal(id.Signing.Public()) || len(got.Managers) != 1 {
		t.Fatal("identity parsed differs", err)
	}

	keys := filepath.Join(dir, "web.key")
	a, b := newKey(t), newKey(t)
	if err := seal.CreatePrivateKeyFile(keys, a, b); err != nil {
		t.Fatal(err)
	}
	read, err := seal.ReadPrivateKeyFile(keys)
	if err != nil || len(read) != 2 || !read[0].Equal(a) || !read[1].Equal(b) {
		t.Fatal(len(read), err)
	}

	pub := filepath.Join(dir, "managers.pub")
	if err := seal.WriteVerifyKeyFile(pub, id.Signing.Public()); err != nil {
		t.Fatal(err)
	}
	trusted, err := seal.ReadVerifyKeyFile(pub)
	if err != nil || len(trusted) != 1 || !trusted[0].Equal(id.Signing.Public()) {
		t.Fatal(len(trusted), err)
	}

	back, err := seal.NewPublicKey(a.Public().Bytes())
	if err != nil || !back.Equal(a.Public()) || back.ID() != a.Public().ID() {
		t.Fatal("public key read back differs", err)
	}
}

func TestBadKeyFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := seal.CreatePrivateKeyFile(good, newKey(t)); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(good)
	for name, bad := range map[string][]byte{
		"empty":      nil,
		"junk":       []byte("hello\n"),
		"junk first": append([]byte("hello\n"), text...),
		"cut":        text[:len(text)-10],
		"wrong type": bytes.ReplaceAll(text, []byte("HPKE PRIVATE"), []byte("OTHER")),
		"huge":       bytes.Repeat(text, 1000),
	} {
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.ReadPrivateKeyFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := seal.ReadIdentityFile(path); err == nil {
			t.Errorf("%s: taken for an identity", name)
		}
	}
	if err := os.Chmod(good, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.ReadPrivateKeyFile(good); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key file that all can read: %v", err)
	}
}

func TestPrivateKeysNeverPrint(t *testing.T) {
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := slog.New(slog.NewJSONHandler(&log, nil))
	l.Info("x", "k", id.Sealing[0], "s", id.Signing, "id", id)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "k", id.Sealing[0], "s", id.Signing)
	j, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(j)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		out += fmt.Sprintf(verb, id.Sealing[0]) + fmt.Sprintf(verb, id.Signing)
	}
	if n := strings.Count(out, "[redacted]"); n != 12+2+2+2+2 {
		t.Errorf("%d of 20 are redacted: %s", n, out)
	}
}

func FuzzOpen(f *testing.F) {
	k := newKey(f)
	sealed, err := k.Public().Seal(nil, []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := seal.Open([]*seal.PrivateKey{k}, nil, b); err == nil && string(plain) != "secret" {
			t.Fatalf("opened to %q", plain)
		}
	})
}
