// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// The files in testdata/pkcs8 are one key, encrypted by OpenSSL 3.0 with the
// passphrase "secret" in all the ways it has.
const secret = "secret"

func fixture(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	block, err := privateKey(data)
	must(t, err)
	return block.Bytes
}

func TestDecrypt(t *testing.T) {
	plain := fixture(t, "testdata/pkcs8/plain.pem")
	files, err := filepath.Glob("testdata/pkcs8/good-*.pem")
	must(t, err)
	if len(files) != 8 {
		t.Errorf("%d files, want 8", len(files))
	}
	for _, file := range files {
		der := fixture(t, file)
		if got, err := decrypt(der, []byte(secret)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %v", file, err)
		}
		for _, wrong := range []string{"", "Secret", "secret\n"} {
			if got, err := decrypt(der, []byte(wrong)); !errors.Is(err, ErrPassphrase) || got != nil {
				t.Errorf("%s with %q: %v", file, wrong, err)
			}
		}
		for n := range der {
			if _, err := decrypt(der[:n], []byte(secret)); err == nil {
				t.Errorf("%s: its first %d bytes are decrypted", file, n)
			}
		}
	}
}

// One wrong passphrase of 256 leaves right padding.
func TestManyWrongPassphrases(t *testing.T) {
	der := encryptedWith(t, 1, 0, make([]byte, 16), make([]byte, 32))
	for i := range 4096 {
		if _, err := decrypt(der, []byte{byte(i), byte(i >> 8)}); !errors.Is(err, ErrPassphrase) {
			t.Fatalf("passphrase %d: %v", i, err)
		}
	}
}

// encryptedWith is an EncryptedPrivateKeyInfo of nothing real.
func encryptedWith(t testing.TB, iterations, keyLength int, iv, data []byte) []byte {
	t.Helper()
	marshal := func(v any) []byte {
		der, err := asn1.Marshal(v)
		must(t, err)
		return der
	}
	algorithm := func(oid asn1.ObjectIdentifier, params any) pkix.AlgorithmIdentifier {
		return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: marshal(params)}}
	}
	type kdf struct {
		Salt       []byte
		Iterations int
		KeyLength  int `asn1:"optional"`
	}
	type schemes struct{ KDF, Scheme pkix.AlgorithmIdentifier }
	type info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	aes := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	return marshal(info{algorithm(oidPBES2, schemes{algorithm(oidPBKDF2, kdf{[]byte("salt"), iterations, keyLength}), algorithm(aes, iv)}), data})
}

func TestDecryptRefuses(t *testing.T) {
	iv, data := make([]byte, 16), make([]byte, 32)
	convert := "openssl pkcs8 -topk8"
	for name, bad := range map[string]struct {
		der   []byte
		texts []string
	}{
		"scrypt":           {fixture(t, "testdata/pkcs8/bad-scrypt.pem"), []string{"scrypt", convert}},
		"PBES1":            {fixture(t, "testdata/pkcs8/bad-pbes1.pem"), []string{"is not PBES2", convert}},
		"SHA-512/256":      {fixture(t, "testdata/pkcs8/bad-prf.pem"), []string{"pseudorandom function", convert}},
		"Camellia":         {fixture(t, "testdata/pkcs8/bad-cipher.pem"), []string{"neither AES nor Triple DES", convert}},
		"much work":        {encryptedWith(t, 1<<40, 0, iv, data), []string{"iterations", "10000000"}},
		"too much work":    {encryptedWith(t, maxIterations+1, 0, iv, data), []string{"10000001 iterations"}},
		"no work":          {encryptedWith(t, 0, 0, iv, data), []string{"0 iterations"}},
		"negative work":    {encryptedWith(t, -1, 0, iv, data), []string{"-1 iterations"}},
		"another length":   {encryptedWith(t, 1, 1<<30, iv, data), []string{"PBKDF2 gives 1073741824 bytes"}},
		"a negative one":   {encryptedWith(t, 1, -1, iv, data), []string{"PBKDF2 gives -1 bytes"}},
		"a short vector":   {encryptedWith(t, 1, 0, iv[1:], data), []string{"do not fit"}},
		"no text":          {encryptedWith(t, 1, 0, iv, nil), []string{"do not fit"}},
		"half a block":     {encryptedWith(t, 1, 0, iv, data[:24]), []string{"do not fit"}},
		"no padding":       {encryptedWith(t, 1, 0, iv, data), []string{"passphrase is wrong"}},
		"nothing":          {nil, []string{"parsing the encrypted key"}},
		"something behind": {append(encryptedWith(t, 1, 0, iv, data), 0), []string{"1 bytes too many"}},
	} {
		if got, err := decrypt(bad.der, []byte(secret)); got != nil {
			t.Errorf("%s: decrypted", name)
		} else {
			refuses(t, err, bad.texts...)
		}
	}
}

// What OpenSSL writes now is read, for all types of keys.
func TestDecryptOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		const hint = "openssl is not installed; run: apt-get install openssl"
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	ca := newCA(t, "ca", nil)
	openssl := func(input []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append(os.Environ(), "PASSPHRASE="+secret)
		cmd.Stdin = bytes.NewReader(input)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
		}
		return out
	}
	pass := []string{"-passin", "env:PASSPHRASE", "-passout", "env:PASSPHRASE"}
	der := func(text []byte) []byte {
		t.Helper()
		block, err := privateKey(text)
		must(t, err)
		return block.Bytes
	}
	for name, key := range map[string]any{"ECDSA": ca.key, "Ed25519": ed, "RSA": rsaKey} {
		plain := keyPEM(t, key)
		for _, args := range [][]string{
			{"pkcs8", "-topk8"},
			{"pkcs8", "-topk8", "-v2", "aes-256-cbc"}, // as errConvert says
			{"pkcs8", "-topk8", "-v2", "des3", "-v2prf", "hmacWithSHA1", "-iter", "1"},
			{"pkey", "-aes192"},
		} {
			encrypted := openssl(plain, append(args, pass...)...)
			if got, err := decrypt(der(encrypted), []byte(secret)); err != nil || !bytes.Equal(got, der(plain)) {
				t.Errorf("%s by openssl %s: %v", name, strings.Join(args, " "), err)
			}
		}
	}
	// The command that errors advise does convert what they are about.
	for _, file := range []string{"scrypt", "pbes1", "prf", "cipher", "old"} {
		_, advice, _ := strings.Cut(errConvert.Error(), "openssl ")
		args := strings.Fields(strings.NewReplacer("FILE", "testdata/pkcs8/bad-"+file+".pem", "-out NEW", "").Replace(advice))
		converted := openssl(nil, append(args, pass...)...)
		if _, err := decrypt(der(converted), []byte(secret)); err != nil {
			t.Errorf("%s: %s: %v", file, advice, err)
		}
	}
}

func TestEncryptedPair(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.pem")
	plain := fixture(t, "testdata/pkcs8/plain.pem")
	key, err := x509.ParsePKCS8PrivateKey(plain)
	must(t, err)
	chain := selfSignedFor(t, key)
	encrypted, err := os.ReadFile("testdata/pkcs8/good-aes-256-cbc.pem")
	must(t, err)
	write(t, file, slices.Concat(chain, encrypted))
	must(t, os.Chmod(file, 0o644))

	var store keyturn.Store
	_, err = watchCalled(Options{}, PEM(&store, "web", file))
	refuses(t, err, "there is no passphrase", "Options.Passphrase", file)
	passphrase := func(secret string, err error) func(string) ([]byte, error) {
		return func(string) ([]byte, error) { return []byte(secret), err }
	}
	_, err = watchCalled(Options{Passphrase: passphrase("wrong", nil)}, PEM(&store, "web", file))
	if !errors.Is(err, ErrPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	_, err = watchCalled(Options{Passphrase: passphrase("", os.ErrPermission)}, PEM(&store, "web", file))
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("no passphrase: %v", err)
	}

	given, calls := []byte(secret), 0
	journal := newJournal()
	w := called(t, Options{Logger: journal.logger(), Passphrase: func(asked string) ([]byte, error) {
		if asked != file {
			t.Errorf("asked for %s", asked)
		}
		calls++
		return given, nil
	}}, PEM(&store, "web", file))
	if lines := strings.Join(journal.drain(), ""); strings.Contains(lines, "mode 0644") {
		t.Errorf("logged %s, but the key is encrypted", lines)
	}
	must(t, w.Reload())
	if calls != 1 {
		t.Errorf("asked %d times for one file", calls)
	}
	// At the renewal, the function may return the same bytes as at the start.
	chain = selfSignedFor(t, key)
	write(t, file, slices.Concat(chain, encrypted))
	must(t, w.Reload())
	if store.Len() != 1 || calls != 2 {
		t.Errorf("%d certificates, asked %d times, want 1 and 2", store.Len(), calls)
	}
	old, err := os.ReadFile("testdata/pkcs8/bad-old.pem")
	must(t, err)
	write(t, file, slices.Concat(chain, old))
	refuses(t, w.Reload(), "the old form of OpenSSL", "openssl pkcs8 -topk8")
	if store.Len() != 1 {
		t.Error("what was served is not any more")
	}
}

// selfSignedFor returns a chain for a key.
func selfSignedFor(t testing.TB, key any) []byte {
	t.Helper()
	signer := key.(crypto.Signer)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), DNSNames: []string{"a.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
