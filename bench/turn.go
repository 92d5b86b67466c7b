// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/keyturn/keyturn"
)

// mostTurns is how many certificates are put in turn. A handshake that began before one
// and ended after it was put again could not be judged, so there are far more than are
// put during a handshake.
const mostTurns = 1 << 14

// A turning replaces one certificate as fast as it can while there are handshakes.
type turning struct {
	store    keyturn.Store
	certs    []tls.Certificate
	begun    atomic.Int64 // number of the last Put that has begun
	returned atomic.Int64 // number of the last Put that has returned

	at       sync.Map // leaf to place in certs
	next     atomic.Int64
	failed   atomic.Int64
	stale    atomic.Int64
	mu       sync.Mutex
	firstErr error
}

// turn counts the handshakes that fail, or get a certificate that a Put had replaced
// when they began, while a certificate is replaced as fast as can be.
func (b *bench) turn() ([]row, error) {
	t := &turning{}
	names := make([][]string, min(mostTurns, b.handshakes))
	for i := range names {
		names[i] = []string{host(0)}
	}
	var err error
	if t.certs, err = b.issueAll(names); err != nil {
		return nil, err
	}
	for i, cert := range t.certs {
		t.at.Store(string(cert.Certificate[0]), i)
	}
	if err := t.store.Put("id", t.certs[0]); err != nil {
		return nil, err
	}
	ending, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- t.write(ending) }()
	server := t.store.ServerConfig()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := t.next.Add(1); n <= int64(b.handshakes); n = t.next.Add(1) {
				t.check(server)
				if tenth := int64(max(1, b.handshakes/10)); n%tenth == 0 {
					fmt.Fprintf(b.stderr, "%s handshakes, %d failed, %d stale\n", thousands(int(n)), t.failed.Load(), t.stale.Load())
				}
			}
		})
	}
	wg.Wait()
	close(ending)
	err = <-ended

	work := thousands(b.handshakes) + " handshakes while replacing"
	count := func(what string, n int64, target bool) row {
		r := row{Work: work, Contender: nameStore, Figure: exactly(float64(n)), Unit: what}
		if target {
			r.aim("0 "+what, n == 0)
		}
		return r
	}
	return []row{
		count("failed", t.failed.Load(), true),
		count("stale", t.stale.Load(), true),
		count("replaced", t.returned.Load(), false),
	}, errors.Join(err, t.firstErr)
}

// write puts the certificates one after the other until ending is closed.
func (t *turning) write(ending <-chan struct{}) error {
	for n := int64(1); ; n++ {
		select {
		case <-ending:
			return nil
		default:
		}
		t.begun.Store(n)
		if err := t.store.Put("id", t.certs[n%int64(len(t.certs))]); err != nil {
			return err
		}
		t.returned.Store(n)
	}
}

// check does a handshake and judges what it got. That the leaf and the key are of one
// pair is what the handshake itself proves.
func (t *turning) check(server *tls.Config) {
	before := t.returned.Load()
	state, err := shake(&tls.Config{ServerName: host(0), InsecureSkipVerify: true}, server)
	after := t.begun.Load()
	if err == nil {
		err = t.judge(state, before, after)
	} else {
		t.failed.Add(1)
	}
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.firstErr == nil {
		t.firstErr = fmt.Errorf("the first that failed or was stale: %w", err)
	}
}

// judge tells what a client may get that began when number before had been put and ended
// when after had at most been begun.
func (t *turning) judge(state tls.ConnectionState, before, after int64) error {
	chain := state.PeerCertificates
	place, known := t.at.Load(string(chain[0].Raw))
	if !known || len(chain) != 2 || !bytes.Equal(chain[1].Raw, t.certs[0].Certificate[1]) {
		t.failed.Add(1)
		return errors.New("it got a chain that was never put")
	}
	n, all := int64(place.(int)), int64(len(t.certs))
	if isStale(n, all, before, after) {
		t.stale.Add(1)
		return fmt.Errorf("it got number %d of %d, of those from %d to %d", n, all, before, after)
	}
	return nil
}

// isStale reports whether the certificate at a place, of all that are put in turn, is
// none of those that were put from before to after.
func isStale(place, all, before, after int64) bool {
	first := before + ((place-before)%all+all)%all // from before on
	return first > after
}
