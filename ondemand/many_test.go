// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// TestMany has 100 goroutines ask for 50 new names at once, of an issuer that is slow,
// or fails and recovers: one issuance for each name, and none with another's.
func TestMany(t *testing.T) {
	for what, test := range map[string]struct {
		delay time.Duration
		fault error
		times int // that each name is issued
	}{
		"quick":                  {0, nil, 1},
		"slow":                   {3 * time.Second, nil, 1},
		"failing and recovering": {3 * time.Second, errDown, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			ca := newFront(t, localca.Config{})
			ca.set(test.delay, test.fault)
			s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Names: []string{"spiffe://example.org/web"}, Allow: ondemand.Names("*.example.com")}
			defer s.Close()
			names := list(50)
			round := func(check func(name string, cert *tls.Certificate, err error)) {
				var wait sync.WaitGroup
				for i := range 100 {
					order := rand.New(rand.NewPCG(1, uint64(i))).Perm(len(names))
					wait.Go(func() {
						var each sync.WaitGroup
						for _, at := range order {
							each.Go(func() {
								cert, err := s.GetCertificate(hello(names[at]))
								check(names[at], cert, err)
							})
						}
						each.Wait()
					})
				}
				wait.Wait()
			}
			if test.fault != nil {
				round(func(name string, cert *tls.Certificate, err error) {
					if err == nil {
						t.Errorf("%s: %s: a certificate from an issuer that fails", what, name)
					}
				})
				ca.once(t, 1, names...)
				ca.set(test.delay, nil)
				time.Sleep(time.Minute)
			}
			round(func(name string, cert *tls.Certificate, err error) {
				if err != nil {
					t.Errorf("%s: %s: %v", what, name, err)
					return
				}
				has(t, cert, name, "web.internal", "spiffe://example.org/web")
			})
			ca.once(t, test.times, names...)
		})
	}
}

// TestShortLives makes 10,000 handshakes, both ways, over 20 rotations of certificates
// that are valid for five minutes.
func TestShortLives(t *testing.T) {
	const rotations = 20
	handshakes := 10_000
	if race.Enabled { // with it, each takes ten times as long
		handshakes = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{Lifetime: 5 * time.Minute})
		ca.set(2*time.Second, nil)
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: ondemand.Names("*.internal"), KeyType: issuer.Ed25519}
		defer s.Close()
		server := &tls.Config{GetCertificate: s.GetCertificate, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}
		client := &tls.Config{GetClientCertificate: s.GetClientCertificate, RootCAs: ca.pool(), ServerName: "db.internal"}
		serials := make(map[string]bool)
		// A rotation comes each 200 seconds at most: a third of the life is left.
		pause := rotations * 200 * time.Second / time.Duration(handshakes)
		for range handshakes {
			_, seen, err := handshake(server, client)
			if err != nil {
				t.Fatal(err)
			}
			serials[fmt.Sprint(seen.PeerCertificates[0].SerialNumber)] = true
			time.Sleep(pause)
		}
		if n := len(serials); n <= rotations {
			t.Errorf("%d certificates were served, want more than %d rotations", n, rotations)
		}
		if n := ca.calls(); n > 2*(rotations+3) {
			t.Errorf("the issuer was asked %d times for %d rotations on each side", n, rotations)
		}
	})
}
