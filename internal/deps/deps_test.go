// SPDX-License-Identifier: Apache-2.0

package deps

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The table. In "a, b < c, d" both c and d may import a, b, and whatever those
// may import. NONE is nothing of this module, EVERYTHING all of it. "a !< b"
// says that no other row may lead from a to b, now or later. "x/..." is x and
// all below it, which need not exist; every other name has to. The root package
// is "keyturn". What follows a "#" is why a row is there that the picture of the
// whole does not need.
const table = `
NONE < keyturn, issuer, solver, internal/durable, internal/crash

internal/durable < seal, bus, replica, bus/jetstream  # files are written in one place
internal/durable < internal/durable/powercut      # what it leaves on the disk, for tests
seal < event
keyturn, event, bus < replica
event, bus < archive
keyturn < reload

solver < solver/internal/port
solver/internal/port < solver/http01, solver/tlsalpn01  # a port is held while there are challenges
solver/http01, solver/tlsalpn01 < replica        # they answer in the place of whoever orders

NONE < internal/printable, internal/plural
keyturn, internal/printable < proxy
NONE < internal/listen                           # ports that are handed over
proxy < internal/status
internal/printable < issuer, manager             # what others wrote is shown
internal/plural < issuer/acme, manager           # "1 certificate"

issuer, solver < config                          # key types are issuer's, challenges solver's
internal/names < config                          # zones and name servers have names, too
internal/schedule < config, manager              # one rule for when to renew
NONE < issuer/policy                             # which names: a private CA's, and its configuration's
issuer, seal, issuer/policy < issuer/localca
issuer/policy < config
internal/cahttp < config                         # where a request may go is known there, too
NONE < internal/cahttp                           # what comes from a CA is bounded in one place
issuer < internal/certchain                      # chains of private CAs are made in one place
issuer, internal/cahttp, internal/certchain, internal/durable < issuer/cfssl
issuer, internal/cahttp, internal/certchain < issuer/vault  # it links Vault's client
issuer, internal/cahttp, internal/certchain < issuer/acmpca  # it links AWS's client
issuer < issuer/issuertest                       # a conformance suite knows its contract alone

bus < bus/membus, bus/jetstream, bus/dynamodb
event < bus/jetstream                            # its credentials know the keys of a fleet
keyturn < bus/jetstream/embedded                 # its own certificate turns, too
bus/jetstream < bus/jetstream/embedded           # the server behind the client, as its tests are
bus < bus/bustest                                # a conformance suite knows its contract alone

issuer, solver, event, bus, config, archive < manager
issuer/localca, issuer/acme < manager             # issuers that keep something
config, issuer, issuer/vault, issuer/cfssl, issuer/acmpca < internal/issuers  # and those that do not
internal/issuers < manager
internal/crash < manager, replica                # they are killed between what they do and what comes of it
internal/names < manager                         # names are normalised where they come in

internal/durable < internal/testprogram           # a lock that a dead process does not hold
internal/testprogram < internal/dynamolocal, internal/stepca, internal/vaultserver, internal/cfsslserver, internal/motoserver, internal/nameserver
internal/testprogram < internal/haproxy
internal/testprogram, bus/jetstream < internal/natsserver  # its accounts and credentials are those of users
NONE < internal/race                              # tests know it
NONE < internal/faultproxy                         # a link to a server that fails
internal/faultproxy < internal/natsserver           # such are the links of a cluster
internal/durable < internal/lineage              # files are read in one place, too
internal/durable < internal/secret               # one of the places is a private file
seal, bus, replica < internal/datadir            # who writes which file of it
keyturn < internal/edge
manager, replica < internal/status               # what of both is shown

solver < internal/acmetest                       # its name server answers dns-01

NONE < internal/resolve                          # the manager's and the issuer's questions
issuer, solver, internal/resolve, internal/crash < issuer/acme
solver, internal/resolve < solver/dns
keyturn, issuer/acme, solver/http01, solver/tlsalpn01 < acme  # a server without bus and manager
internal/names, internal/schedule, internal/durable < acme
issuer, internal/names, internal/schedule, internal/durable, internal/printable < ondemand
solver/dns < solver/dns/internal/lego, solver/dns/exec, solver/dns/rfc2136
solver/dns/internal/lego < solver/dns/azure, solver/dns/cloudflare, solver/dns/desec, solver/dns/digitalocean, solver/dns/gandi
solver/dns/internal/lego < solver/dns/google, solver/dns/hetzner, solver/dns/ovh, solver/dns/powerdns, solver/dns/route53
NONE < solver/dns/internal/endpoint              # secrets are posted in one place
solver/dns, solver/dns/internal/endpoint < solver/dns/webhook, solver/dns/acmedns
solver/dns < solver/dns/internal/apitest
EVERYTHING < internal/solvers                    # it links all services; programs alone import it

internal/plural < doctor                         # it knows crypto/tls alone
issuer/issuertest, issuer/localca < internal/hostileca  # what it answers is signed
NONE < internal/acmpcatest                       # it stands in for a service of others
NONE < internal/schedule, internal/names, internal/checkin, internal/lambda, internal/deps, internal/gotest, internal/testnet, packaging
internal/testnet < docs                          # the guide's hosts
EVERYTHING < cmd/..., examples/..., e2e/..., bench/...

manager !< replica
replica !< manager
issuer/localca, issuer/vault, issuer/cfssl, issuer/acmpca !< config  # the configuration of a CA is plain data
bus/membus !< bus/jetstream
bus/dynamodb !< bus/jetstream
bus/jetstream !< bus/dynamodb
bus/jetstream !< bus/membus, manager, replica    # they know the contract, whatever the bus
bus/membus !< manager, replica
`

// standardOnly are the packages that link nothing outside the standard library
// and this module, through nothing they import.
var standardOnly = []string{
	"keyturn", "issuer", "seal", "event", "bus", "archive", "replica", "doctor", "reload",
	"solver/http01", "solver/tlsalpn01",
}

// platforms are those that "make dist" builds for: files can be left out by their
// build constraints, and imports with them.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/arm64"}

func TestImports(t *testing.T) {
	look(t)
	rules, err := parse(table)
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range platforms {
		packages := list(t, platform, "./...")
		for name, p := range packages {
			if _, ok := rules.row(name); !ok {
				t.Errorf("package %s is in no row of the table in internal/deps/deps_test.go: enter what it may import", name)
				continue
			}
			allowed := rules.allowed(name)
			for _, path := range p.Imports {
				if imported, ok := local(p, path); ok && allowed != nil && !allowed[imported] {
					t.Errorf("%s: %s imports %s; the table in internal/deps/deps_test.go allows it %s",
						platform, name, imported, enumerate(allowed))
				}
			}
		}
		for name := range rules.under {
			if _, ok := packages[name]; !ok && !strings.HasSuffix(name, "/...") {
				t.Errorf("%s: the table has a row for %s, which is not there", platform, name)
			}
		}
	}
}

func TestStandardLibraryOnly(t *testing.T) {
	look(t)
	for _, platform := range platforms {
		for _, name := range standardOnly {
			pattern := "./" + name
			if name == "keyturn" {
				pattern = "."
			}
			for _, p := range list(t, platform, "-deps", pattern) {
				if !p.Standard && p.Module == nil {
					t.Errorf("%s: %s links %s, which is in no module", platform, name, p.ImportPath)
				}
				if !p.Standard && p.Module != nil && !p.Module.Main {
					t.Errorf("%s: %s links %s of %s: only the standard library is allowed there", platform, name, p.ImportPath, p.Module.Path)
				}
			}
		}
	}
}

// look reads the folders of the module in this process, so that "go test", which
// does not know what "go list" reads, runs the test again when a file has changed.
func look(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != "../.." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "dist") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The table itself is code, and has its own mistakes.
func TestTable(t *testing.T) {
	good, err := parse("NONE < a\na < b # why\nb < c, d\nEVERYTHING < x/...\nd !< c")
	if err != nil {
		t.Fatal(err)
	}
	if got := enumerate(good.allowed("c")); got != "a, b" {
		t.Errorf("c may import %s, want a, b: the table is transitive", got)
	}
	if got := enumerate(good.allowed("a")); got != "nothing of this module" {
		t.Errorf("a may import %s", got)
	}
	if good.allowed("x/y") != nil || good.allowed("x") != nil {
		t.Error("x/y is limited, want everything")
	}
	if _, ok := good.row("xy"); ok {
		t.Error("xy was found in the row of x/...")
	}
	for _, bad := range []string{
		"a b",                                   // no relation
		"a < b",                                 // a stands nowhere
		"NONE < a\na < b < c",                   // two relations
		"NONE < a\na < ",                        // an empty name
		"NONE < a\na < b\nb < c\na !< c",        // forbidden and allowed by two steps
		"NONE < a\na < b\nb < a",                // a circle
		"NONE < a\na !< b",                      // b stands nowhere
		"NONE < a\nNONE !< a",                   // says nothing
		"NONE < a\nEVERYTHING, a < b",           // says two things
		"NONE < a\nEVERYTHING < b\nb < c\na< c", // a program is imported
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is taken for a table", bad)
		}
	}
}

// rules are the table, read.
type rules struct {
	under map[string][]string // what stands on the left of each name, NONE left out
}

const (
	none       = "NONE"
	everything = "EVERYTHING"
)

func parse(text string) (rules, error) {
	r := rules{make(map[string][]string)}
	var never [][2]string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		relation := "<"
		if strings.Contains(line, "!<") {
			relation = "!<"
		}
		sides := strings.Split(line, relation)
		if len(sides) != 2 {
			return r, fmt.Errorf("table: %q is not of the form a < b", line)
		}
		left, right := names(sides[0]), names(sides[1])
		if slices.Contains(left, "") || slices.Contains(right, "") {
			return r, fmt.Errorf("table: a name is missing in %q", line)
		}
		special := slices.Contains(left, none) || slices.Contains(left, everything)
		if special && (len(left) > 1 || relation == "!<") {
			return r, fmt.Errorf("table: %s and %s stand alone before a <: %q", none, everything, line)
		}
		for _, b := range right {
			if relation == "!<" {
				for _, a := range left {
					never = append(never, [2]string{a, b})
				}
				continue
			}
			r.under[b] = append(r.under[b], slices.DeleteFunc(slices.Clone(left), func(a string) bool { return a == none })...)
		}
	}
	for b, under := range r.under {
		for _, a := range under {
			if a == everything {
				continue
			}
			if _, ok := r.under[a]; !ok {
				return r, fmt.Errorf("table: %s < %s, but %s is on the right of no row", a, b, a)
			}
			if r.allowed(a) == nil {
				return r, fmt.Errorf("table: %s < %s, but %s may import everything: nothing may import it", a, b, a)
			}
		}
		if r.allowed(b)[b] {
			return r, fmt.Errorf("table: %s may import itself through others", b)
		}
	}
	for _, n := range never {
		for _, name := range n {
			if _, ok := r.under[name]; !ok {
				return r, fmt.Errorf("table: %s !< %s, but %s is on the right of no row", n[0], n[1], name)
			}
		}
		if r.allowed(n[1])[n[0]] {
			return r, fmt.Errorf("table: %s !< %s, but other rows allow it", n[0], n[1])
		}
	}
	return r, nil
}

func names(side string) []string {
	list := strings.Split(side, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// row finds the name that a package has in the table.
func (r rules) row(name string) (string, bool) {
	if _, ok := r.under[name]; ok {
		return name, true
	}
	for row := range r.under {
		if prefix, ok := strings.CutSuffix(row, "/..."); ok && (name == prefix || strings.HasPrefix(name, prefix+"/")) {
			return row, true
		}
	}
	return "", false
}

// allowed returns what a package may import; nil is everything.
func (r rules) allowed(name string) map[string]bool {
	row, _ := r.row(name)
	if slices.Contains(r.under[row], everything) {
		return nil
	}
	all := make(map[string]bool)
	next := slices.Clone(r.under[row])
	for len(next) > 0 {
		a := next[len(next)-1]
		next = next[:len(next)-1]
		if !all[a] {
			all[a] = true
			next = append(next, r.under[a]...)
		}
	}
	return all
}

func enumerate(set map[string]bool) string {
	if len(set) == 0 {
		return "nothing of this module"
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}

// goPackage is what of the output of "go list -json" is looked at.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string // without those of tests
	Module     *struct {
		Path string
		Main bool
	}
}

// list returns packages by the names they have in the table.
func list(t *testing.T, platform string, args ...string) map[string]goPackage {
	t.Helper()
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Standard,Imports,Module"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	packages := make(map[string]goPackage)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list %s: %v", strings.Join(args, " "), err)
		}
		name, ok := local(p, p.ImportPath)
		if !ok {
			name = p.ImportPath
		}
		packages[name] = p
	}
}

// local returns the name in the table of a package that the module of p has.
func local(p goPackage, path string) (string, bool) {
	if p.Module == nil || !p.Module.Main {
		return "", false
	}
	if path == p.Module.Path {
		return "keyturn", true
	}
	return strings.CutPrefix(path, p.Module.Path+"/")
}
