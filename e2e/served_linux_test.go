// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/manager"
)

const webName = "www.example.com"

// TestFleet has five balancers serve what a command on an eighth host makes, while
// a balancer stands still, one is lost and comes back, and the bus goes and
// returns. Handshakes are made all the time.
func TestFleet(t *testing.T) {
	f := newFleet(t)
	desk := newHost(t, f.network, "desk")
	f.addManager(desk)
	ops2 := newHost(t, f.network, "ops2")
	f.addManager(ops2)
	second := f.serve(ops2)

	s := &served{fleet: f, desk: desk}
	for i := range 5 {
		b := f.join(newHost(t, f.network, fmt.Sprintf("lb%d", i+1)), "web")
		b.start(f.user)
		s.balancers = append(s.balancers, b)
	}
	s.id = strings.TrimSpace(desk.keyturn("cert", "mk", webName, "--subdomain", "--group", "web", "--wait", "served"))
	for _, b := range s.balancers {
		c := f.client(b, s.id, webName)
		s.clients, s.loads = append(s.clients, c), append(s.loads, c.load())
	}
	s.renewals(20)
	s.standsStill(1)
	s.withoutBus(second)
	s.renewals(1)
	made := 0
	for i, l := range s.loads {
		made += l.end(t, s.balancers[i].Name)
	}
	t.Logf("%d handshakes, none of which failed", made)
	s.allFollow()
}

// served is a fleet that serves one certificate.
type served struct {
	*fleet
	desk      *host // where commands are given
	id        string
	balancers []*balancer
	clients   []*client // one for each balancer
	loads     []*load
}

// renewals renews a number of times. Whenever the command returns, every balancer
// serves just that generation.
func (s *served) renewals(n int) {
	s.t.Helper()
	var longest time.Duration
	for range n {
		said, err := s.desk.renew(s.id, "--wait", "served")
		if err != nil {
			s.t.Fatal(err)
		}
		longest = max(longest, s.serve(said.Serial))
	}
	s.t.Logf("%d renewals; the slowest handshake with the new certificate took %s from the command's return", n, seconds(longest))
}

// serve makes a handshake with every balancer at once: each has to get the
// certificate with this serial.
func (s *served) serve(serial string) (slowest time.Duration) {
	s.t.Helper()
	began := time.Now()
	errs, took := make([]error, len(s.clients)), make([]time.Duration, len(s.clients))
	var wg sync.WaitGroup
	for i, c := range s.clients {
		wg.Go(func() {
			errs[i] = c.sees(serial)
			took[i] = time.Since(began)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			s.t.Errorf("%s: %v", s.balancers[i].Name, err)
		}
		slowest = max(slowest, took[i])
	}
	return slowest
}

// serial is that of the newest generation.
func (s *served) serial() string { return s.ops.cat(s.id).Certificate.Serial }

// standsStill stops a balancer's process: nobody else is named then, and nobody
// has to do anything when it goes on. Its own handshakes pause: those that it
// would have been in the middle of are over when it goes on.
func (s *served) standsStill(i int) {
	s.t.Helper()
	b := s.balancers[i]
	s.loads[i].end(s.t, b.Name)
	if err := b.server.signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	_, err := s.desk.try("cert", "renew", s.id, "--wait", "served", "--timeout", "15s")
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != 1 {
		s.t.Fatalf("one balancer stands still: %v; want exit code 1", err)
	}
	_, said, ok := strings.Cut(exit.err.String(), "is served by 4 of 5 replicas")
	if !ok {
		s.t.Fatalf("%v; want how many serve it", err)
	}
	for _, other := range s.balancers {
		if named := strings.Contains(said, other.Name+" ("); named != (other == b) {
			s.t.Errorf("one balancer stands still, %s, and the command says:\n%s", b.Name, exit.err.String())
		}
	}
	if !strings.Contains(said, "): has version ") {
		s.t.Errorf("the command does not say why:\n%s", exit.err.String())
	}
	if err := b.server.signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	s.loads[i] = s.clients[i].load()
	if out := s.desk.keyturn("status", s.id, "--wait"); !strings.Contains(out, "served 5/5") {
		s.t.Errorf("status --wait says:\n%s", out)
	}
	s.serve(s.serial())
}

// withoutBus stops the manager that runs the bus. A balancer that is killed
// meanwhile serves again from its snapshot; the other manager says what is wrong;
// and when the bus is back, everybody follows it by himself.
func (s *served) withoutBus(second *process) {
	s.t.Helper()
	last := len(s.balancers) - 1
	b, serial := s.balancers[last], s.serial()
	s.manager.stop(s.t, sigterm)
	s.desk.refused(1, []string{"the bus at tls://", "cannot be reached"}, "status")
	s.loads[last].end(s.t, b.Name)
	b.server.kill(s.t)
	restarted := time.Now()
	b.start(s.user)
	s.loads[last] = s.clients[last].load()
	s.serve(serial)
	eventually(s.t, "the second manager", func() error {
		if log := second.err.String(); !strings.Contains(log, "the bus cannot be reached; trying on") {
			return fmt.Errorf("it does not say that the bus is gone:\n%s", tail(log))
		}
		return nil
	})
	if second.ended() {
		s.t.Errorf("the second manager ended with code %d", second.code)
	}

	s.startManager()
	eventually(s.t, "the report of "+b.Name, func() error {
		for _, m := range s.members() {
			if m.Name == b.Name && m.Started.After(restarted) {
				return nil
			}
		}
		return errors.New("it does not say that it was restarted")
	})
	s.desk.keyturn("status", s.id, "--wait")
	s.allFollow()
}

// allFollow waits until status says of every balancer that it follows the bus.
func (s *served) allFollow() {
	s.t.Helper()
	eventually(s.t, "status", func() error {
		members := s.members()
		if len(members) != len(s.balancers) {
			return fmt.Errorf("%d members, want %d", len(members), len(s.balancers))
		}
		for _, m := range members {
			if !m.Following || m.Silent || m.Differs {
				return fmt.Errorf("%+v", m)
			}
		}
		return nil
	})
}

// members are the balancers as status shows them.
func (s *served) members() []manager.MemberStatus {
	s.t.Helper()
	var fleet manager.Fleet
	if err := json.Unmarshal([]byte(s.desk.keyturn("status", "--group", "web", "--output", "json")), &fleet); err != nil {
		s.t.Fatalf("status: %v", err)
	}
	return fleet.Members
}
