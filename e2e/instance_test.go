// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An instance is a running "keyturn serve --dev".
type instance struct {
	*process
	s    *sandbox
	edge string // address of the edge
	web  string // address of the plain HTTP port
	nats string // address of the bus
}

// The lines of the banner.
var (
	edgeLine = regexp.MustCompile(`(?m)^  edge +https://localhost:([0-9]+)/`)
	pageLine = regexp.MustCompile(`(?m)^  page +http://localhost:([0-9]+)/`)
	busLine  = regexp.MustCompile(`(?m)^  bus +nats://127\.0\.0\.1:([0-9]+)$`)
)

// anyPorts lets the system choose.
var anyPorts = []string{"--edge", "127.0.0.1:0", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0"}

// serve starts an instance on the sandbox's data directory. Later flags count.
func (s *sandbox) serve(flags ...string) *instance {
	s.t.Helper()
	in, err := s.tryServe(flags...)
	if err != nil {
		s.t.Fatal(err)
	}
	return in
}

func (s *sandbox) tryServe(flags ...string) (*instance, error) {
	args := append([]string{"serve", "--dev"}, anyPorts...)
	return s.instance(s.start(keyturn, append(args, flags...)...))
}

// instance waits until the banner is there, and reads it.
func (s *sandbox) instance(p *process) (*instance, error) {
	err := poll(func() error {
		if p.ended() || strings.Contains(p.out.String(), "Ctrl-C stops it") {
			return nil
		}
		return fmt.Errorf("%s: it does not come up\n%s", p, tail(p.err.String()))
	})
	if err != nil {
		return nil, err
	}
	if p.ended() {
		return nil, &exitError{p}
	}
	in := &instance{process: p, s: s}
	for _, line := range []struct {
		of *regexp.Regexp
		to *string
	}{{edgeLine, &in.edge}, {pageLine, &in.web}, {busLine, &in.nats}} {
		port := line.of.FindStringSubmatch(p.out.String())
		if port == nil {
			return nil, fmt.Errorf("the banner has no line like %v:\n%s", line.of, p.out.String())
		}
		*line.to = "127.0.0.1:" + port[1]
	}
	return in, nil
}

// get gets a page from the plain HTTP port.
func (in *instance) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + in.web + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	return resp.StatusCode, string(b)
}

// An edgeState is what the page shows, as far as the tests look at it.
type edgeState struct {
	Main           string
	Served, Failed uint64
	Certificates   []struct {
		ID, Serial, Fingerprint string
		Generation              uint64
	}
}

func (in *instance) edgeState(t *testing.T) (s edgeState) {
	t.Helper()
	_, body := in.get(t, "/state")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("/state: %v\n%s", err, body)
	}
	return s
}

// metric returns the value of a series on /metrics.
func (in *instance) metric(t *testing.T, series string) float64 {
	t.Helper()
	_, body := in.get(t, "/metrics")
	for _, line := range lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("/metrics: %s: %v", line, err)
			}
			return v
		}
	}
	t.Fatalf("/metrics has no series %s:\n%s", series, body)
	return 0
}

// A certificate is what "cert cat" prints, as far as the tests look at it.
type certificate struct {
	ID, Group, Key string
	Names          []string
	Epoch          uint64
	Generation     uint64
	Removed        bool
	RenewAt        time.Time `json:"renew_at"`
	Certificate    *issued
	History        []generation
}

type issued struct {
	Serial, SHA256 string
	NotBefore      time.Time `json:"not_before"`
	NotAfter       time.Time `json:"not_after"`
	ChainPEM       string    `json:"chain_pem"`
	SealedKey      []byte    `json:"sealed_key"`
}

// A generation is a row of "cert history".
type generation struct {
	Epoch, Generation uint64
	Reason, Serial    string
}

// tryCat runs "cert cat".
func (s *sandbox) tryCat(id string) (c certificate, err error) {
	out, err := s.try("cert", "cat", id)
	if err == nil {
		err = json.Unmarshal([]byte(out), &c)
	}
	if err == nil && (c.ID != id || c.Certificate == nil || len(c.History) == 0) {
		err = fmt.Errorf("cert cat %s: it has no certificate or no history:\n%s", id, out)
	}
	return c, err
}

func (s *sandbox) cat(id string) certificate {
	s.t.Helper()
	c, err := s.tryCat(id)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// list runs "cert ls" and returns the ids by their names.
func (s *sandbox) list() map[string]string {
	s.t.Helper()
	var rows []certificate
	if err := json.Unmarshal([]byte(s.keyturn("cert", "ls", "--output", "json")), &rows); err != nil {
		s.t.Fatalf("cert ls: %v", err)
	}
	ids := make(map[string]string)
	for _, c := range rows {
		for _, name := range c.Names {
			ids[name] = c.ID
		}
	}
	return ids
}

// edgeID is the id of the edge's own certificate.
func (s *sandbox) edgeID() string {
	s.t.Helper()
	id, ok := s.list()["localhost"]
	if !ok {
		s.t.Fatal("no certificate for localhost is managed")
	}
	return id
}

var renewedLine = regexp.MustCompile(`^(\S+) is renewed: generation ([0-9]+), serial ([0-9a-f]+), expires \S+\n$`)

// renew runs "cert renew" and returns what it says.
func (s *sandbox) renew(id string, flags ...string) (generation, error) {
	out, err := s.try(append([]string{"cert", "renew", id}, flags...)...)
	if err != nil {
		return generation{}, err
	}
	said := renewedLine.FindStringSubmatch(out)
	if said == nil || said[1] != id {
		return generation{}, fmt.Errorf("cert renew %s says %q", id, out)
	}
	g := generation{Serial: said[3]}
	g.Generation, err = strconv.ParseUint(said[2], 10, 64)
	return g, err
}

// check compares what a command said of a generation with the history.
func (c certificate) check(said generation) error {
	for _, g := range c.History {
		if g.Generation == said.Generation {
			if g.Serial != said.Serial {
				return fmt.Errorf("%s: generation %d was said to have serial %s, the history has %s", c.ID, g.Generation, said.Serial, g.Serial)
			}
			return nil
		}
	}
	if len(c.History) > 0 && said.Generation < c.History[0].Generation {
		return nil // as old as not to be kept
	}
	return fmt.Errorf("%s: generation %d was said to be made and is not in the history", c.ID, said.Generation)
}

// consistent checks that the parts of "cert cat" say the same: one certificate
// for each generation, the generations without gaps, the newest in the chain.
func (c certificate) consistent() error {
	serials := make(map[string]uint64)
	for i, g := range c.History {
		if i > 0 && (g.Generation != c.History[i-1].Generation+1 || g.Epoch < c.History[i-1].Epoch) {
			return fmt.Errorf("%s: the history goes from %v to %v", c.ID, c.History[i-1], g)
		}
		if other, ok := serials[g.Serial]; ok {
			return fmt.Errorf("%s: generations %d and %d have the same serial %s", c.ID, other, g.Generation, g.Serial)
		}
		serials[g.Serial] = g.Generation
	}
	chain, err := parseChain(c.Certificate.ChainPEM)
	if err != nil {
		return fmt.Errorf("%s: %w", c.ID, err)
	}
	newest := c.History[len(c.History)-1]
	switch leaf := serialOf(chain[0]); {
	case newest.Generation != c.Generation || newest.Epoch != c.Epoch:
		return fmt.Errorf("%s: it is at %d.%d, its history at %d.%d", c.ID, c.Epoch, c.Generation, newest.Epoch, newest.Generation)
	case newest.Serial != c.Certificate.Serial || leaf != newest.Serial:
		return fmt.Errorf("%s: serial %s in the history, %s beside the chain, %s in it", c.ID, newest.Serial, c.Certificate.Serial, leaf)
	case fingerprint(chain[0]) != c.Certificate.SHA256:
		return errors.New(c.ID + ": the fingerprint is not the leaf's")
	}
	return nil
}
