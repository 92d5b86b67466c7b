// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/manager"
)

// patience is how long a script waits for something that takes as long as it
// takes on a busy machine.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"keyturn": main, "brokenservers": brokenServers, "idleserver": idleServer, "checkins": checkIns, "service": service,
	})
}

// TestScripts runs testdata/script/*.txtar: the command line as users have it,
// each command in a process of its own. Beside testscript's commands there are
//
//	exits N COMMAND…           the command exits with exactly N
//	until N COMMAND…           repeat it until it does
//	ready DIR                  wait for the instance in a data directory
//	signal TERM                send a signal to what runs in the background
//	set NAME FILE [PATH]       a variable from a file, or from a value of its JSON
//	json FILE PATH VALUE       the value at PATH, as in .names.0, is VALUE
//	leaf FILE KEY LIFETIME     what cert cat printed holds such a certificate
//	alike DIR NAME NAME NAME   make certificates until two ids start alike: both
//	                           ids, and that start, become variables
//	mark DIR ID…               mark certificates, so that they are due
//	elsewhere DIR NAME…        fullchain.pem and privkey.pem of a certificate that
//	                           another CA signed, and that CA's root.pem
//	free NAME…                 addresses that nothing listens on become variables
//	curl CA ADDRESS PATH…      ask for a path of a proxy until there is an answer
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			// With -race every process sleeps a second when it exits, by default.
			e.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=10"))
			return os.MkdirAll(e.Getenv("HOME"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  scriptExits,
			"until":  scriptUntil,
			"ready":  scriptReady,
			"signal": scriptSignal,
			"set":    scriptSet,
			"json":   scriptJSON,
			"leaf":   scriptLeaf,
			"alike":  scriptAlike,
			"mark":   scriptMark,

			"elsewhere": scriptElsewhere,
			"free":      scriptFree,
			"curl":      scriptCurl,
		},
	})
}

// usage fails the script unless a command has from least to most arguments.
func usage(ts *testscript.TestScript, neg bool, args []string, least, most int, text string) {
	if neg || len(args) < least || len(args) > most {
		ts.Fatalf("usage: %s", text)
	}
}

// exitCode runs a command and returns how it exited.
func exitCode(ts *testscript.TestScript, command []string) int {
	err := ts.Exec(command[0], command[1:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%s: %v", command[0], err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

func code(ts *testscript.TestScript, arg string) int {
	n, err := strconv.Atoi(arg)
	ts.Check(err)
	return n
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 100, "exits N COMMAND…")
	if got := exitCode(ts, args[1:]); got != code(ts, args[0]) {
		ts.Fatalf("it exits with %d, not %s", got, args[0])
	}
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 100, "until N COMMAND…")
	for end := time.Now().Add(patience); exitCode(ts, args[1:]) != code(ts, args[0]); {
		if time.Now().After(end) {
			ts.Fatalf("it did not exit with %s in %v", args[0], patience)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// here runs a command line in this process: for preparing and waiting, where
// many processes would take long.
func here(args ...string) (out string, err error) {
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), args, strings.NewReader(""), &stdout, &stderr); code != 0 {
		err = fmt.Errorf("keyturn %s exits with %d: %s", strings.Join(args, " "), code, stderr.String())
	}
	return stdout.String(), err
}

func scriptReady(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "ready DIR")
	dir := ts.MkAbs(args[0])
	for end := time.Now().Add(patience); ; {
		err := answers(dir)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not ready in %v: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// answers returns nil when the instance in dir can be worked with: the group's
// key comes last and, with --dev, the edge's certificate.
func answers(dir string) error {
	kind, err := os.ReadFile(filepath.Join(dir, "kind"))
	if err != nil {
		return err
	}
	d := datadir.At(dir)
	url, err := d.URL()
	if err != nil {
		return err
	}
	log, err := jetstream.Connect(jetstream.Options{URL: url, Creds: d.File(bus.ManagerCreds), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	if _, err := log.Get(ctx, event.GroupKey(manager.DefaultGroup)); err != nil || strings.TrimSpace(string(kind)) != datadir.Dev {
		return err
	}
	out, err := here("cert", "ls", "--data", dir, "--output", "json")
	if err == nil && !strings.Contains(out, `"localhost"`) {
		err = errors.New("the edge's certificate is not there")
	}
	return err
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "signal TERM")
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}
	s, ok := signals[args[0]]
	if !ok {
		ts.Fatalf("unknown signal %s", args[0])
	}
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(s))
	}
}

func scriptSet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 3, "set NAME FILE [PATH]")
	value := strings.TrimSpace(ts.ReadFile(args[1]))
	if len(args) == 3 {
		value = at(ts, args[1], args[2])
	}
	ts.Setenv(args[0], value)
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] json FILE PATH VALUE")
	}
	if got := at(ts, args[0], args[1]); (got == args[2]) == neg {
		ts.Fatalf("%s is %s", args[1], got)
	}
}

// at returns the value at a path in a file of JSON: a string as it is, anything
// else as JSON. "" is what is not there, .len the length of a list.
func at(ts *testscript.TestScript, file, path string) string {
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v", file, err)
	}
	for step := range strings.SplitSeq(strings.Trim(path, "."), ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[step]
		case []any:
			i, err := strconv.Atoi(step)
			switch {
			case step == "len":
				v = len(in)
			case step == "":
			case err != nil || i < 0 || i >= len(in):
				v = nil
			default:
				v = in[i]
			}
		}
	}
	if s, ok := v.(string); ok || v == nil {
		return s
	}
	text, err := json.Marshal(v)
	ts.Check(err)
	return string(text)
}

func scriptLeaf(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 3, "leaf FILE KEY LIFETIME")
	text := ts.ReadFile(args[0])
	var c struct {
		Names       []string
		Certificate struct {
			Serial    string
			Issued    time.Time
			ChainPEM  string `json:"chain_pem"`
			SealedKey []byte `json:"sealed_key"`
		}
	}
	ts.Check(json.Unmarshal([]byte(text), &c))
	want, err := time.ParseDuration(args[2])
	ts.Check(err)
	if len(c.Certificate.SealedKey) == 0 {
		ts.Fatalf("there is no sealed key")
	}
	if _, err := x509.ParsePKCS8PrivateKey(c.Certificate.SealedKey); err == nil || strings.Contains(text, "PRIVATE KEY") {
		ts.Fatalf("there is a plain private key")
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode([]byte(c.Certificate.ChainPEM)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		ts.Check(err)
		chain = append(chain, cert)
	}
	if len(chain) != 2 {
		ts.Fatalf("the chain has %d certificates, not leaf and intermediate", len(chain))
	}
	leaf := chain[0]
	ts.Check(leaf.CheckSignatureFrom(chain[1]))
	if got := fmt.Sprintf("%x", leaf.SerialNumber); got != c.Certificate.Serial {
		ts.Fatalf("the leaf's serial is %s, not %s", got, c.Certificate.Serial)
	}
	if got := len(leaf.DNSNames) + len(leaf.IPAddresses); got != len(c.Names) {
		ts.Fatalf("the leaf has %d names, not %d", got, len(c.Names))
	}
	for _, name := range c.Names {
		ts.Check(leaf.VerifyHostname(strings.Replace(name, "*", "any", 1)))
	}
	if got := keyOf(leaf); got != args[1] {
		ts.Fatalf("the leaf's key is %s", got)
	}
	// Times in certificates are whole seconds.
	if got := leaf.NotAfter.Sub(c.Certificate.Issued); (got - want).Abs() > 5*time.Second {
		ts.Fatalf("the leaf lives %v", got)
	}
}

// keyOf names a leaf's key type as the command line does.
func keyOf(leaf *x509.Certificate) string {
	switch k := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ecdsa-p%d", k.Curve.Params().BitSize)
	case *rsa.PublicKey:
		return fmt.Sprintf("rsa-%d", k.N.BitLen())
	case ed25519.PublicKey:
		return "ed25519"
	}
	return fmt.Sprintf("%T", leaf.PublicKey)
}

func scriptAlike(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 4, 4, "alike DIR NAME NAME NAME")
	first := make(map[byte]string)
	for i := 0; ; i++ { // there are 63 first characters
		out, err := here("cert", "mk", "--data", ts.MkAbs(args[0]), "--subdomain", fmt.Sprintf("alike%d.example", i))
		ts.Check(err)
		id := strings.TrimSpace(out)
		if other := first[id[0]]; other != "" {
			ts.Setenv(args[1], other)
			ts.Setenv(args[2], id)
			ts.Setenv(args[3], id[:1])
			return
		}
		first[id[0]] = id
	}
}
