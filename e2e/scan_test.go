// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/internal/testprogram"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// The scanners.
var (
	testssl = testprogram.Debian{Name: "testssl.sh", Package: "testssl.sh", Path: "usr/bin/testssl"}
	sslscan = testprogram.Debian{Name: "sslscan", Package: "sslscan", Path: "usr/bin/sslscan"}
)

// harmless are findings above "informational" of testssl.sh that are none, and why.
var harmless = map[string]string{
	"engine_problem":        "of testssl.sh's own openssl",
	"scanTime":              "how long it took",
	"cert_expirationStatus": "certificates live short here",
	"cert_notAfter":         "as before",
	"cert_revocation":       "a private CA's, that nobody asks: it lives short instead",
	"TLS_session_ticket":    "Go says a week of every ticket; the keys that open them are turned each day",
	"HSTS":                  "is for the service behind the proxy to say, and the edge is localhost",
	"security_headers":      "as before",
}

// A target is a port to be scanned.
type target struct {
	name  string // it is asked for by
	addr  string
	roots string // PEM file
}

// TestScan has testssl.sh and sslscan look at all that takes TLS from others. Whatever
// they find that is not informational is a failure, but for what is harmless here.
func TestScan(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	ca, err := localca.New(localca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for what, to := range map[string]target{"edge": s.scanEdge(), "proxy": s.scanProxy(ca), "bus": scanBus(t)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			scanWithTestssl(t, to)
			scanWithSSLScan(t, to)
		})
	}
}

func (s *sandbox) scanEdge() target {
	in := s.serve("--dev-lifetime", "24h")
	return target{"localhost", in.edge, filepath.Join(s.state, "keyturn-dev", "ca.pem")}
}

// scanProxy starts a proxy in front of a service that says how to be reached.
func (s *sandbox) scanProxy(ca *localca.CA) target {
	t := s.t
	t.Helper()
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(key, []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Issue(t.Context(), csr, 90*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
	t.Cleanup(service.Close)
	addr := freeAddr(t)
	s.start(keyturn, "proxy", "--listen", addr, "--to", service.URL, "--admin", "127.0.0.1:0",
		"--cert", file("cert.pem", scanPEM("CERTIFICATE", chain...)), "--key", file("key.pem", scanPEM("PRIVATE KEY", pkcs8)))
	eventually(t, "the proxy listens", func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return target{"localhost", addr, file("ca.pem", ca.RootPEM())}
}

func scanPEM(kind string, ders ...[]byte) (text []byte) {
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return text
}

// scanBus starts a bus that others can reach. A NATS server says something before it
// begins with TLS, which scanners do not know: it is taken away.
func scanBus(t *testing.T) target {
	t.Helper()
	server, err := embedded.Start(embedded.Config{
		Dir: filepath.Join(t.TempDir(), "bus"), Listen: "0.0.0.0:0", Advertise: []string{"localhost"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	roots := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(roots, scanPEM("CERTIFICATE", server.Roots()...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(server.URL()[strings.LastIndex(server.URL(), "/")+1:])
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			relays.Go(func() { withoutGreeting(near, net.JoinHostPort("127.0.0.1", port)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		relays.Wait()
	})
	return target{"localhost", l.Addr().String(), roots}
}

// withoutGreeting carries a connection to a server, but for the server's first line.
func withoutGreeting(near net.Conn, addr string) {
	defer near.Close()
	far, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer far.Close()
	from := bufio.NewReader(far)
	if _, err := from.ReadString('\n'); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(far, near); _ = far.(*net.TCPConn).CloseWrite() })
	both.Go(func() { _, _ = io.Copy(near, from); _ = near.(*net.TCPConn).CloseWrite() })
	both.Wait()
}

func scanWithTestssl(t *testing.T, to target) {
	t.Helper()
	program := testssl.Installed(t)
	report := filepath.Join(t.TempDir(), "report.json")
	_, port, err := net.SplitHostPort(to.addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program.Path,
		"--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--headers", "--vulnerable",
		"--warnings", "off", "--color", "0", "--quiet", "--nodns", "none", "--add-ca", to.roots, "--jsonfile", report, "https://"+to.name+":"+port)
	cmd.Env = program.Environ()
	if program.Dir != "" {
		cmd.Env = append(cmd.Env, "TESTSSL_INSTALL_DIR="+filepath.Join(program.Dir, "etc/testssl"),
			"PATH="+os.Getenv("PATH")+":"+filepath.Join(program.Dir, "usr/bin"))
	}
	out, _ := cmd.CombinedOutput() // its exit code counts findings
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(text, &findings); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	looked := false
	for _, f := range findings {
		looked = looked || f.ID == "TLS1_3"
		switch f.Severity {
		case "OK", "INFO", "DEBUG":
		default:
			if harmless[strings.Fields(f.ID)[0]] == "" {
				t.Errorf("testssl.sh: %s %s: %s", f.Severity, f.ID, f.Finding)
			}
		}
	}
	if !looked {
		t.Fatalf("testssl.sh has not looked at the versions of TLS:\n%s", out)
	}
}

// A scan is what sslscan reports.
type scan struct {
	Protocols []struct {
		Type    string `xml:"type,attr"`
		Version string `xml:"version,attr"`
		Enabled int    `xml:"enabled,attr"`
	} `xml:"ssltest>protocol"`
	Compression struct {
		Supported int `xml:"supported,attr"`
	} `xml:"ssltest>compression"`
	Heartbleed []struct {
		Vulnerable int `xml:"vulnerable,attr"`
	} `xml:"ssltest>heartbleed"`
	Ciphers []struct {
		Name     string `xml:"cipher,attr"`
		Bits     int    `xml:"bits,attr"`
		Strength string `xml:"strength,attr"`
	} `xml:"ssltest>cipher"`
}

// sound are the suites that are used: authenticated encryption, with forward secrecy.
var sound = regexp.MustCompile(`^(TLS_(AES|CHACHA20)|ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM|CHACHA20))`)

func scanWithSSLScan(t *testing.T, to target) {
	t.Helper()
	program := sslscan.Installed(t)
	cmd := exec.CommandContext(t.Context(), program.Path, "--xml=-", "--sni-name="+to.name, to.addr)
	cmd.Env = program.Environ()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sslscan: %v\n%s", err, out)
	}
	var found scan
	if err := xml.Unmarshal(out, &found); err != nil {
		t.Fatalf("sslscan: %v\n%s", err, out)
	}
	enabled := 0
	for _, p := range found.Protocols {
		if p.Enabled == 1 {
			enabled++
			if p.Type != "tls" || p.Version < "1.2" {
				t.Errorf("sslscan: %s %s is on", p.Type, p.Version)
			}
		}
	}
	if enabled == 0 || len(found.Ciphers) == 0 {
		t.Fatalf("sslscan has found nothing:\n%s", out)
	}
	for _, c := range found.Ciphers {
		if !sound.MatchString(c.Name) || c.Bits < 128 {
			t.Errorf("sslscan: the suite %s (%s)", c.Name, c.Strength)
		}
	}
	if found.Compression.Supported != 0 {
		t.Error("sslscan: compression")
	}
	for _, h := range found.Heartbleed {
		if h.Vulnerable != 0 {
			t.Error("sslscan: Heartbleed")
		}
	}
}
