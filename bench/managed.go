// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	_ "github.com/keyturn/keyturn/bus/jetstream" // the bus of manageOnNATS
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
)

const (
	nameInMemory = "manager, bus in memory"
	nameOnNATS   = "manager, NATS with sync always"
	issuerName   = "pebble"
)

// managed is a manager that runs, and its certificates.
type managed struct {
	name  string
	log   bus.Log
	ends  []func() // what is beneath the manager, then the manager
	m     *manager.Manager
	ids   []string
	turn  int // how many were renewed by hand
	mu    sync.Mutex
	turns map[string]uint64 // guarded by mu; the newest generation by id
	told  chan struct{}     // that it changed

	signers []*seal.VerifyKey  // what a replica believes
	keys    []*seal.PrivateKey // what it opens certificates with
}

// manageInMemory returns a manager's surroundings whose bus writes nothing down.
func (b *bench) manageInMemory() (*managed, error) {
	return &managed{name: nameInMemory, log: membus.New()}, nil
}

// manageOnNATS returns a manager's surroundings with the bus of `keyturn serve`.
func (b *bench) manageOnNATS() (_ *managed, err error) {
	m := &managed{name: nameOnNATS}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	dir, err := os.MkdirTemp(b.dir, "manager-")
	if err != nil {
		return nil, err
	}
	server, err := embedded.Start(embedded.Config{Dir: filepath.Join(dir, "bus"), Listen: "127.0.0.1:0", Logger: quiet})
	if err != nil {
		return nil, err
	}
	m.ends = append(m.ends, server.Shutdown)
	if _, err := server.Create(context.Background(), manager.DefaultTenant, ""); err != nil {
		return nil, err
	}
	creds, err := server.ManagerCreds(manager.DefaultTenant)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{bus.URLFile: server.URL(), bus.ManagerCreds: string(creds)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	conn, err := bus.OpenDir(dir, bus.Options{Creds: bus.ManagerCreds, Logger: quiet})
	if err != nil {
		return nil, err
	}
	m.ends = append(m.ends, conn.Close)
	m.log = conn
	return m, nil
}

func (m *managed) close() {
	for i := len(m.ends) - 1; i >= 0; i-- {
		m.ends[i]()
	}
}

// begin has a manager make n certificates of a CA, and look after them.
func (m *managed) begin(ca *acmetest.CA, n int) error { return m.beginWith(sharedConfig(ca), n) }

// beginWith is begin for a shared configuration.
func (m *managed) beginWith(shared string, n int) error {
	identity, err := seal.NewIdentity()
	if err != nil {
		return err
	}
	group, err := seal.GenerateKey()
	if err != nil {
		return err
	}
	m.signers, m.keys = []*seal.VerifyKey{identity.Signing.Public()}, []*seal.PrivateKey{group}
	m.turns, m.told = make(map[string]uint64), make(chan struct{}, 1)
	if m.m, err = manager.New(manager.Config{
		Log: m.log, Identity: identity, Logger: slog.New(slog.DiscardHandler), Changed: m.changed,
		Solvers: func(string, config.Solver, []string) (solver.Solver, []string, error) {
			return nobody{}, []string{solver.DNS01}, nil
		},
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.ends = append(m.ends, cancel)
	if err := m.m.Init(ctx); err != nil {
		return err
	}
	if err := m.m.AddGroup(ctx, manager.DefaultGroup, group.Public()); err != nil {
		return err
	}
	if _, err := m.m.UpdateConfig(ctx, []byte(shared), bus.Position{}); err != nil {
		return err
	}
	for i := range n {
		c, err := m.m.Make(ctx, manager.Request{Names: []string{host(i)}})
		if err != nil {
			return err
		}
		m.ids = append(m.ids, c.ID)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.m.Run(ctx)
	}()
	m.ends[len(m.ends)-1] = func() {
		cancel()
		<-ended
	}
	return m.wait(uint64(n))
}

func sharedConfig(ca *acmetest.CA) string {
	roots := strings.ReplaceAll(strings.TrimSpace(ca.WebRoots()), "\n", "\n      ")
	return fmt.Sprintf(`default_issuer: %s
resolvers: [%q]
solvers:
  none:
    type: exec
    program: /bin/false
zones:
  .: [none]
issuers:
  %s:
    type: acme
    directory: %s
    terms_agreed: true
    challenge: dns-01
    roots: |
      %s
`, issuerName, ca.DNS.Addr(), issuerName, ca.Directory(), roots)
}

func (m *managed) changed(c *manager.Managed) {
	m.mu.Lock()
	m.turns[c.ID] = c.Generation
	m.mu.Unlock()
	select {
	case m.told <- struct{}{}:
	default:
	}
}

// made is how many generations of all certificates there are.
func (m *managed) made() (n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, generation := range m.turns {
		n += generation
	}
	return n
}

// wait returns when there are so many generations, and the queue is empty.
func (m *managed) wait(made uint64) error {
	limit := time.After(5 * time.Minute)
	for m.made() < made {
		select {
		case <-m.told:
		case <-limit:
			return fmt.Errorf("%s: %d of %d generations are made after five minutes", m.name, m.made(), made)
		}
	}
	for len(m.m.Stats().Queues) > 0 { // the last one is being copied for its group
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

// one renews certificates by hand, each in its turn.
func (m *managed) one(times int) error {
	for range times {
		id := m.ids[m.turn%len(m.ids)]
		m.turn++
		if _, err := m.m.Renew(context.Background(), id, event.ReasonRenewal); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// mark marks all certificates, as "cert renew --all --issuer" does, while their issuer
// is paused.
func (m *managed) mark() error {
	err := m.m.PauseIssuer(context.Background(), issuerName, "")
	if err == nil {
		_, err = m.m.MarkIssuer(context.Background(), issuerName, event.ReasonRenewal)
	}
	for limit := time.Now().Add(time.Minute); err == nil && !m.waiting(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			err = fmt.Errorf("%s: not all certificates wait for their issuer a minute after they were marked", m.name)
		}
	}
	return err
}

// waiting reports whether all certificates wait to be renewed.
func (m *managed) waiting() bool {
	queues := m.m.Stats().Queues
	return len(queues) == 1 && queues[0].Waiting == len(m.ids)
}

// all has the queue renew all certificates that mark has marked.
func (m *managed) all(int) error {
	want := m.made() + uint64(len(m.ids))
	err := m.m.ResumeIssuer(context.Background(), issuerName, "")
	if err == nil {
		err = m.wait(want)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}
