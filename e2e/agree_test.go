// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestIndependentClientsAgree has OpenSSL, curl and Go connect to the edge, verify
// what they get against ca.pem, and compares what that was.
func TestIndependentClientsAgree(t *testing.T) {
	t.Parallel()
	openssl, curl := need(t, "openssl"), need(t, "curl")
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h")
	id := s.edgeID()
	if _, err := s.renew(id); err != nil {
		t.Fatal(err)
	}
	chain, err := parseChain(s.cat(id).Certificate.ChainPEM)
	if err != nil {
		t.Fatal(err)
	}
	c := s.client(t, in.edge, "localhost")
	eventually(t, "the edge", func() error { return c.sees(serialOf(chain[0])) })
	agree := func(who string, got []*x509.Certificate) {
		t.Helper()
		if !slices.EqualFunc(got, chain, (*x509.Certificate).Equal) {
			t.Errorf("%s: a chain of %d certificates, the leaf %s; keyturn says %d and %s",
				who, len(got), fingerprint(got[0]), len(chain), fingerprint(chain[0]))
		}
	}
	if len(chain) != 2 {
		t.Errorf("the chain has %d certificates, want leaf and intermediate", len(chain))
	}
	ca := filepath.Join(s.data, "ca.pem")
	_, port, err := net.SplitHostPort(in.edge)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		name, openssl string
		curl          []string
		version       uint16
	}{
		{"TLS 1.2", "-tls1_2", []string{"--tlsv1.2", "--tls-max", "1.2"}, tls.VersionTLS12},
		{"TLS 1.3", "-tls1_3", []string{"--tlsv1.3"}, tls.VersionTLS13},
	} {
		state, err := c.with(v.version, false).handshake()
		if err != nil {
			t.Fatalf("Go, %s: %v", v.name, err)
		}
		agree("Go, "+v.name, state.PeerCertificates)

		out, err := s.foreign(openssl, "s_client", v.openssl, "-connect", in.edge, "-servername", "localhost", "-showcerts",
			"-CAfile", ca, "-no-CApath", "-no-CAstore", "-verify_return_error", "-x509_strict", "-verify_hostname", "localhost")
		if err != nil || !strings.Contains(out, "Verify return code: 0 (ok)") {
			t.Fatalf("openssl, %s: %v\n%s", v.name, err, out)
		}
		got, err := parseChain(out)
		if err != nil {
			t.Fatalf("openssl, %s: %v\n%s", v.name, err, out)
		}
		agree("openssl, "+v.name, got)

		args := append(v.curl, "--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert", ca)
		out, err = s.foreign(curl, append(args, "https://localhost:"+port+"/state")...)
		if err != nil || !strings.Contains(out, fingerprint(chain[0])) {
			t.Fatalf("curl, %s: %v\n%s", v.name, err, out)
		}
		out, err = s.foreign(curl, append(args, "--output", "/dev/null", "--write-out", "%{certs}", "https://localhost:"+port+"/")...)
		if err != nil {
			t.Fatalf("curl, %s: %v\n%s", v.name, err, out)
		}
		if got, err := parseChain(out); err == nil {
			agree("curl, "+v.name, got)
		} else if before788(t, curl) {
			t.Logf("curl, %s: it verifies, and is too old to show the chain", v.name)
		} else {
			t.Errorf("curl, %s: %v\n%s", v.name, err, out)
		}
	}

	// What they agree on is worth something only if they can disagree.
	if out, err := s.foreign(openssl, "s_client", "-connect", in.edge, "-servername", "localhost",
		"-CAfile", ca, "-no-CApath", "-no-CAstore", "-verify_return_error", "-verify_hostname", "other.example"); err == nil {
		t.Errorf("openssl accepts another name:\n%s", out)
	}
	if out, err := s.foreign(curl, "--silent", "--noproxy", "*", "https://localhost:"+port+"/"); err == nil {
		t.Errorf("curl accepts an unknown CA:\n%s", out)
	}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		if out, err := s.foreign(openssl, "s_client", "-connect", in.edge,
			"-CAfile", ca, "-no-CApath", "-no-CAstore", "-verify_return_error", "-verify_ip", ip); err != nil {
			t.Errorf("openssl, as %s: %v\n%s", ip, err, out)
		}
	}
	in.stop(t, sigterm)
}

// foreign runs a program of somebody else to its end, with nothing to read.
func (s *sandbox) foreign(program string, args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), program, args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env, &out, &out
	err := cmd.Run()
	return out.String(), err
}

// before788 reports whether curl does not know %{certs} yet.
func before788(t *testing.T, curl string) bool {
	t.Helper()
	out, err := exec.Command(curl, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(out)) // curl 7.88.1 (…
	if len(fields) < 2 {
		return false
	}
	major, rest, _ := strings.Cut(fields[1], ".")
	minor, _, _ := strings.Cut(rest, ".")
	return len(major) == 1 && (major < "7" || major == "7" && (len(minor) < 2 || len(minor) == 2 && minor < "88"))
}
