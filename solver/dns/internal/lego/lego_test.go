// SPDX-License-Identifier: Apache-2.0

package lego

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/challenge/dns01"

	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/dns"
)

// seen is a provider that finds name, value and zone as all of lego's do.
type seen struct {
	mu    sync.Mutex
	calls map[string]bool // guarded by mu
}

func (s *seen) Present(ctx context.Context, domain, _, keyAuth string) error {
	info := dns01.GetChallengeInfo(ctx, domain, keyAuth)
	zone, err := dns01.DefaultClient().FindZoneByFqdn(ctx, info.EffectiveFQDN)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[info.EffectiveFQDN+" "+zone+" "+info.Value] = true
	return nil
}

func (s *seen) CleanUp(ctx context.Context, domain, token, keyAuth string) error {
	return s.Present(ctx, domain, token, keyAuth)
}

// TestFindsWhatTheSolverFound holds that lego comes to the same name, value and
// zone, for many records at once, and asks nobody else.
func TestFindsWhatTheSolverFound(t *testing.T) {
	t.Setenv("LEGO_DISABLE_CNAME_SUPPORT", "") // it would set invented names
	s := &seen{calls: make(map[string]bool)}
	p := New(true, func() (challenge.Provider, error) { return s, nil })
	var all sync.WaitGroup
	var records []dns.Record
	for i := range 50 {
		zone := fmt.Sprintf("z%d.example.test", i%3)
		key := fmt.Sprint(i)
		records = append(records, dns.Record{
			Name: fmt.Sprintf("a%d.%s", i, zone), Zone: zone, KeyAuthorization: key,
			Value: solver.Challenge{KeyAuthorization: key}.DNSValue(),
		})
	}
	for _, r := range records {
		all.Go(func() {
			if err := errors.Join(p.Present(t.Context(), r), p.CleanUp(t.Context(), r)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, r := range records {
		if key := r.Name + ". " + r.Zone + ". " + r.Value; !s.calls[key] {
			t.Errorf("%s was not asked for", key)
		}
	}
	if n := len(s.calls); n != len(records) {
		t.Errorf("%d records of %d", n, len(records))
	}
	server, err := start()
	if err != nil {
		t.Fatal(err)
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if len(server.aliases) != 0 || len(server.zones) != 0 {
		t.Errorf("it still knows %v, %v", server.aliases, server.zones)
	}
}

// TestOpensAgain holds that a service which was away at first is not given up.
func TestOpensAgain(t *testing.T) {
	away := errors.New("away")
	var opened int
	p := New(false, func() (challenge.Provider, error) {
		if opened++; opened == 1 {
			return nil, away
		}
		return &seen{calls: make(map[string]bool)}, nil
	})
	r := dns.Record{Name: "a.example.test", Zone: "example.test", Value: "v", KeyAuthorization: "k"}
	if opened != 0 {
		t.Fatal("it was opened before it was needed")
	}
	if err := p.Present(t.Context(), r); !errors.Is(err, away) {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Present(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if opened != 2 {
		t.Fatalf("opened %d times", opened)
	}
}
