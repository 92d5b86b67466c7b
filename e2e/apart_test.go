// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"
)

// example starts examples/server and waits until it serves.
func (s *sandbox) example() (*process, *client) {
	t := s.t
	t.Helper()
	for range 5 {
		addr := freeAddr(t)
		p := s.start(exampleServer, "--listen", addr)
		c := s.client(t, addr, "localhost")
		err := poll(func() error {
			if p.ended() {
				return nil
			}
			_, err := c.handshake()
			return err
		})
		switch {
		case err != nil:
			t.Fatalf("%s: it does not serve: %v\n%s", p, err, tail(p.err.String()))
		case !p.ended():
			return p, c
		case !strings.Contains(p.err.String(), "address already in use"):
			t.Fatalf("%s: exit code %d\n%s", p, p.code, tail(p.err.String()))
		}
	}
	t.Fatal("every port that is free is taken a moment later")
	return nil, nil
}

// TestServedWithoutKeyturn has examples/server live on without manager and bus,
// through a restart of its own, and catch up by itself when they return, on
// another port.
func TestServedWithoutKeyturn(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h")
	id := s.edgeID()
	first, err := s.renew(id)
	if err != nil {
		t.Fatal(err)
	}
	server, c := s.example()
	eventually(t, "the example server", func() error { return c.sees(first.Serial) })

	began := time.Now()
	in.stop(t, sigterm)
	t.Logf("keyturn serve ended %v after SIGTERM", seconds(time.Since(began)))
	if err := c.sees(first.Serial); err != nil {
		t.Fatalf("without keyturn: %v", err)
	}
	server.stop(t, sigterm)
	server, c = s.example()
	if err := c.sees(first.Serial); err != nil {
		t.Fatalf("restarted without keyturn: %v", err)
	}

	old := in.nats
	if in, err = s.tryServe(); err != nil {
		t.Fatal(err)
	}
	if in.nats == old {
		t.Log("the bus happens to be where it was")
	}
	second, err := s.renew(id)
	if err != nil {
		t.Fatal(err)
	}
	if second.Generation != first.Generation+1 {
		t.Errorf("generation %d follows %d", second.Generation, first.Generation)
	}
	began = time.Now()
	eventually(t, "the renewal after the return", func() error {
		if server.ended() {
			t.Fatalf("the example server has ended:\n%s", tail(server.err.String()))
		}
		return c.sees(second.Serial)
	})
	t.Logf("the renewal arrived %v after the command's return", seconds(time.Since(began)))
	server.stop(t, sigterm)
	in.stop(t, sigterm)

	// And nothing of the second one is lost either.
	server, c = s.example()
	if err := c.sees(second.Serial); err != nil {
		t.Fatalf("restarted again without keyturn: %v", err)
	}
	// kill -9 has to be good enough, too.
	server.kill(t)
	server, c = s.example()
	if err := c.sees(second.Serial); err != nil {
		t.Fatalf("restarted after a kill: %v", err)
	}
	server.stop(t, sigterm)
}

// TestConcurrentRenewals has eight processes at a time renew one certificate,
// 32 in all.
func TestConcurrentRenewals(t *testing.T) {
	t.Parallel()
	const parallel, each = 8, 4
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h", "--log-level", "info")
	id := s.edgeID()
	claims := s.watchClaims(t, in, id)

	type answer struct {
		before uint64
		said   generation
		err    error
	}
	answers := make(chan answer, parallel*each)
	var newest highest
	newest.raise(1)
	for range parallel {
		go func() {
			for range each {
				a := answer{before: newest.get()}
				if a.said, a.err = s.renew(id); a.err == nil {
					newest.raise(a.said.Generation)
				}
				answers <- a
			}
		}()
	}
	var said []generation
	for range parallel * each {
		a := <-answers
		switch {
		case a.err != nil:
			t.Error(a.err)
		case a.said.Generation <= a.before:
			t.Errorf("a command that began after generation %d answers generation %d", a.before, a.said.Generation)
		}
		said = append(said, a.said)
	}
	if t.Failed() {
		return
	}
	c := s.cat(id)
	if err := c.consistent(); err != nil {
		t.Error(err)
	}
	for _, g := range said {
		if err := c.check(g); err != nil {
			t.Error(err)
		}
	}
	if c.Generation < 2 || c.Generation > 1+parallel*each {
		t.Errorf("%d renewals ended at generation %d", parallel*each, c.Generation)
	}
	for generation, owners := range claims() {
		if len(owners) > 1 {
			t.Errorf("generation %d was claimed by %d managers", generation, len(owners))
		}
	}
	// Each generation was live once, and nothing else was.
	eventually(t, "the edge", func() error { return s.client(t, in.edge, "localhost").sees(c.Certificate.Serial) })
	in.stop(t, sigterm)
	live := make(map[string]int)
	for _, line := range lines(in.err.String()) {
		if strings.Contains(line, `msg="certificate is live"`) {
			_, version, _ := strings.Cut(line, "version=")
			version, _, _ = strings.Cut(version, " ")
			live[version]++
		}
		if strings.Contains(line, "could not be renewed") {
			t.Errorf("the instance says: %s", line)
		}
	}
	if len(live) == 0 || uint64(len(live)) > c.Generation {
		t.Errorf("the edge had %d generations live of %d", len(live), c.Generation)
	}
	for version, n := range live {
		if n != 1 {
			t.Errorf("generation %s went live %d times", version, n)
		}
	}
	t.Logf("%d commands made %d generations; %d of them were seen live on the edge", parallel*each, c.Generation-1, len(live)-1)
}
