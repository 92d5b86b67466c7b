// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// A secret is something that must stand nowhere, in all the ways in which it
// could.
type secret struct {
	name    string
	needles map[string][]byte // by what they are
	files   []string          // in which it has to stand; everywhere else it must not
}

// newSecret takes the secret bytes themselves.
func newSecret(name string, b []byte) secret {
	s := secret{name: name, needles: make(map[string][]byte)}
	s.add("plain", b)
	s.add("the start of it", b[:min(len(b), 16)])
	s.add("the end of it", b[max(0, len(b)-16):])
	s.add("in hexadecimal", []byte(hex.EncodeToString(b)))
	s.add("in hexadecimal", []byte(strings.ToUpper(hex.EncodeToString(b))))
	s.add("as a decimal number", []byte(new(big.Int).SetBytes(b).String()))
	s.add("as Go prints bytes", []byte(strings.Trim(fmt.Sprint(b), "[]")))
	// A base64 of something longer has it in one of three ways, by where it begins;
	// the characters at both ends belong to its neighbours as well.
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := e.EncodeToString(append(make([]byte, before), b...))
			s.add(fmt.Sprintf("in base64, shifted by %d", before), []byte(text[(before*8+5)/6:len(text)-1]))
		}
	}
	return s
}

func (s *secret) add(how string, needle []byte) {
	for _, ok := s.needles[how]; ok; _, ok = s.needles[how] {
		how += "'"
	}
	s.needles[how] = needle
}

// find returns how the secret stands in a text, "" if it does not. folded is the
// text without what a line's end may put in between.
func (s *secret) find(text, folded []byte) string {
	for how, needle := range s.needles {
		if bytes.Contains(text, needle) || bytes.Contains(folded, needle) {
			return how
		}
	}
	return ""
}

// fold takes out what stands between the lines of a PEM block: in files, in JSON,
// in quoted logs, in OpenSSL's hexadecimal.
func fold(text []byte) []byte {
	for _, between := range []string{`\r`, `\n`, "\r", "\n", " ", "\t", ":"} {
		text = bytes.ReplaceAll(text, []byte(between), nil)
	}
	return text
}

// secretsOf returns what is secret in a private key (PKCS #8).
func secretsOf(t *testing.T, name string, pkcs8 []byte) []secret {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	all := []secret{{name: name + ", PKCS #8", needles: map[string][]byte{"DER": pkcs8, "base64": []byte(base64.StdEncoding.EncodeToString(pkcs8))}}}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return append(all, newSecret(name+", scalar", d))
	case ed25519.PrivateKey:
		return append(all, newSecret(name+", seed", k.Seed()))
	case *rsa.PrivateKey:
		all = append(all, newSecret(name+", exponent", k.D.Bytes()))
		for _, p := range k.Primes {
			all = append(all, newSecret(name+", prime", p.Bytes()))
		}
		return all
	}
	t.Fatalf("%s: a %T", name, key)
	return nil
}

// TestNoPlainKeys makes keys of every type, opens them as a replica and as a
// manager may, and looks for them everywhere else.
func TestNoPlainKeys(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h", "--log-level", "debug")
	var pages bytes.Buffer

	groupFile, identityFile := replica.KeyFile(s.data, replica.DefaultGroup), filepath.Join(s.data, "identity.pem")
	groupKeys, err := seal.ReadPrivateKeyFile(groupFile)
	if err != nil {
		t.Fatal(err)
	}
	var secrets []secret
	var public []byte // a leaf: what the search has to find
	collect := func(id, what string) {
		t.Helper()
		c := s.cat(id)
		chain, err := parseChain(c.Certificate.ChainPEM)
		if err != nil {
			t.Fatal(err)
		}
		e := event.Certificate{Group: c.Group, ID: c.ID, Version: event.Version{Epoch: c.Epoch, Generation: c.Generation}, SealedKey: c.Certificate.SealedKey}
		for _, cert := range chain {
			e.Chain = append(e.Chain, cert.Raw)
		}
		pkcs8, err := e.OpenKey(tenant, groupKeys)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		key, err := x509.ParsePKCS8PrivateKey(pkcs8)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		own, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !own.Equal(key.(crypto.Signer).Public()) {
			t.Fatalf("%s: the key is not the leaf's", what)
		}
		public = chain[0].Raw
		secrets = append(secrets, secretsOf(t, fmt.Sprintf("%s, generation %d", what, c.Generation), pkcs8)...)
	}
	renew := func(id, what string) {
		t.Helper()
		if _, err := s.renew(id); err != nil {
			t.Fatal(err)
		}
		collect(id, what)
	}
	edgeID := s.edgeID()
	collect(edgeID, "the edge's key")
	renew(edgeID, "the edge's key")
	for _, key := range []string{"ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096", "ed25519"} {
		id := strings.TrimSpace(s.keyturn("cert", "mk", key+".example.com", "--key", key))
		collect(id, key)
		if key != "rsa-4096" { // it takes its time
			renew(id, key)
		}
		c := s.client(t, in.edge, key+".example.com")
		serial := s.cat(id).Certificate.Serial
		eventually(t, key, func() error { return c.sees(serial) })
	}
	for i, pkcs8 := range s.caKeys(t, in, identityFile) {
		secrets = append(secrets, secretsOf(t, fmt.Sprintf("key %d of the CA", i+1), pkcs8)...)
	}

	// Whatever else says something.
	for _, args := range [][]string{
		{"cert", "ls"},
		{"cert", "ls", "-o", "json"},
		{"cert", "renewable", "2099-01-01"},
		{"cert", "history", edgeID},
		{"cert", "cat", edgeID},
		{"conf", "display"},
		{"conf", "display", "-o", "json"},
		{"cert", "renew", edgeID, "-o", "json"},
		{"version"},
	} {
		s.keyturn(args...)
	}
	collect(edgeID, "the edge's key")
	removed := s.list()["ed25519.example.com"]
	s.keyturn("cert", "rm", removed)
	for _, path := range []string{"/", "/state", "/metrics", "/healthz", "/readyz"} {
		_, body := in.get(t, path)
		pages.WriteString(body)
	}
	s.checkModes(t)
	in.stop(t, sigterm)
	in = s.serve("--log-level", "debug", "--log-format", "json") // which opens everything again
	eventually(t, "the edge", func() error { _, err := s.client(t, in.edge, "localhost").handshake(); return err })
	in.stop(t, sigterm)
	s.checkModes(t)

	// The keys that open the others stand in their own files and nowhere else; the
	// group's also in the directories that have joined it.
	own := make(map[string]int)
	joined := func(dir, name string) string { return filepath.Join(s.data, "joined", dir, name) }
	files := map[string][]string{
		groupFile:    {groupFile, joined("edge", "groups/default.key"), joined("example-server", "groups/default.key")},
		identityFile: {identityFile},
	}
	for _, dir := range []string{"edge", "example-server"} {
		host := joined(dir, replica.HostFile)
		files[host] = []string{host}
	}
	for file, places := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for rest := text; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			k := newSecret(filepath.Base(file)+", "+block.Type, block.Bytes)
			if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				k = newSecret(k.name, key.(ed25519.PrivateKey).Seed())
			}
			k.files = places
			secrets = append(secrets, k)
			own[file]++
		}
	}
	if len(own) != 4 || own[groupFile] != 1 || own[identityFile] != 2 {
		t.Errorf("%v keys in the key files", own)
	}

	places := make(map[string][]byte)
	err = filepath.WalkDir(s.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		places[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	places["the pages"] = pages.Bytes()
	var outputs bytes.Buffer
	for _, p := range s.processes { // none runs any more
		outputs.WriteString(p.out.String())
		outputs.WriteString(p.err.String())
	}
	places["the output of all commands and the logs"] = outputs.Bytes()
	size, leaf := 0, 0
	foundIn := make(map[string]bool)
	for place, text := range places {
		size += len(text)
		if bytes.Contains(text, public) {
			leaf++
		}
		folded := fold(text)
		for _, k := range secrets {
			how := k.find(text, folded)
			switch {
			case how == "":
			case slices.Contains(k.files, place):
				foundIn[k.name+place] = true
			default:
				t.Errorf("%s holds %s, %s", place, k.name, how)
			}
		}
	}
	// A search that finds nothing may be one that cannot find anything.
	for _, k := range secrets {
		for _, file := range k.files {
			if !foundIn[k.name+file] {
				t.Errorf("the search does not find %s in %s, where it is", k.name, file)
			}
		}
	}
	if leaf < 2 {
		t.Errorf("the search finds the edge's leaf in %d places, want the bus and the snapshot at least", leaf)
	}
	if !bytes.Contains(outputs.Bytes(), []byte("level=DEBUG")) {
		t.Error("nothing was logged at level debug")
	}
	t.Logf("%d secrets were looked for in %d places of %d bytes", len(secrets), len(places), size)
}

// caKeys returns the keys of the development CA (PKCS #8), opened with the
// managers' key.
func (s *sandbox) caKeys(t *testing.T, in *instance, identityFile string) (keys [][]byte) {
	t.Helper()
	identity, err := seal.ReadIdentityFile(identityFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const key = "conf/issuer/dev"
	entry, err := s.bus(t, in).Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Open(s.managers(t), tenant, key, entry.Data)
	if err != nil {
		t.Fatal(err)
	}
	state := e.Body.(*event.IssuerState)
	plain, err := seal.Open(identity.Sealing, state.Associated(tenant), state.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	// Whatever the format is, the keys in it are DER.
	for i := range plain {
		var der asn1.RawValue
		if plain[i] != 0x30 {
			continue
		}
		if _, err := asn1.Unmarshal(plain[i:], &der); err != nil {
			continue
		}
		if _, err := x509.ParsePKCS8PrivateKey(der.FullBytes); err == nil {
			keys = append(keys, der.FullBytes)
		}
	}
	if len(keys) != 2 {
		t.Fatalf("the sealed CA holds %d private keys, want the root's and the intermediate's", len(keys))
	}
	return keys
}

// checkModes checks that the data directory is its owner's alone, but for what
// others need to trust it.
func (s *sandbox) checkModes(t *testing.T) {
	t.Helper()
	public := map[string]bool{"ca.pem": true, "managers.pub": true}
	err := filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(s.data, path) // both are absolute
		mode := info.Mode()
		switch secret := slices.ContainsFunc([]string{".pem", ".key", ".creds", ".nk"}, func(end string) bool { return strings.HasSuffix(name, end) }); {
		case public[filepath.Base(name)]:
			if mode.Perm()&0o022 != 0 {
				t.Errorf("%s: mode %v: others can write it", name, mode)
			}
		case mode.Perm()&0o077 != 0:
			t.Errorf("%s: mode %v: others can get at it", name, mode)
		case secret && mode.IsRegular() && mode.Perm() != 0o600:
			t.Errorf("%s: mode %v, want 0600", name, mode)
		case !mode.IsRegular() && !mode.IsDir():
			t.Errorf("%s: mode %v: neither file nor directory", name, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
