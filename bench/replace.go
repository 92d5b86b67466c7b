// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/keyturn/keyturn"
)

const (
	// mostReplaced bounds the places that are replaced in turn: enough to find few of
	// them in the processor's cache.
	mostReplaced = 4096

	// timesFewer is what replacing one of many may take as a ratio to one of few. It is
	// above 1 since there is more memory to reach into, which the map shows.
	timesFewer = 1.25

	namePut  = "Store.Put"
	nameLoad = "Store.Load"
)

// replace measures what replacing a certificate takes by the number that is held: with
// all checks by Put, without them by Load, and that of a pointer in a map.
func (b *bench) replace() ([]row, error) {
	var contenders []contender
	var held []int // by each of contenders
	for _, n := range []int{b.few, b.many} {
		more, err := b.replacers(n)
		if err != nil {
			return nil, err
		}
		for _, c := range more {
			contenders, held = append(contenders, c), append(held, n)
		}
	}
	c, done, err := b.replaceInCertMagic(b.few)
	if err != nil {
		return nil, err
	}
	defer done()
	contenders, held = append(contenders, c), append(held, b.few)
	all, err := interleave(b.rounds, b.slice, contenders)
	if err != nil {
		return nil, err
	}
	few := make(map[string]samples)
	var rows []row
	for i, s := range all {
		r := row{Work: "replace one of " + thousands(held[i]), Contender: s.contender, Figure: spreadOf(s.ns), Unit: "ns", Allocs: &s.allocs}
		switch {
		case s.contender == nameCertMagic:
			r.Ratio, r.Than = new(ratio(s, few[namePut])), namePut
		case held[i] == b.few:
			few[s.contender] = s
		default:
			r.Ratio, r.Than = new(ratio(s, few[s.contender])), "one of "+thousands(b.few)
			if s.contender == namePut {
				r.aim(fmt.Sprintf("≤ %.2f × one of %s", timesFewer, thousands(b.few)), r.Ratio.Median <= timesFewer)
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// replacers returns the ways of replacing one of n.
func (b *bench) replacers(n int) ([]contender, error) {
	defer b.stage("hold %s", thousands(n))()
	var store keyturn.Store
	unopened := func() (tls.Certificate, error) { return tls.Certificate{}, errors.New("nobody asked for it") }
	load := func(i int) error {
		return store.Load(placeID(i), keyturn.Lazy{Names: []string{host(i)}, Open: unopened})
	}
	if err := inParallel(n, load); err != nil {
		return nil, err
	}
	// Even ones are for Put, odd ones for Load.
	places := rand.Perm(n / 2)[:min(mostReplaced, n/2)]
	names := make([][]string, len(places))
	for k, i := range places {
		names[k] = []string{host(2 * i)}
	}
	certs, err := b.issueAll(names)
	if err != nil {
		return nil, err
	}
	held := make(map[string]*atomic.Pointer[tls.Certificate], n)
	for i := range n {
		held[host(i)] = new(atomic.Pointer[tls.Certificate])
	}
	one := func(name string, replace func(k int) error) contender {
		k := 0
		return contender{name: name, run: func(times int) error {
			for range times {
				k = (k + 1) % len(places)
				if err := replace(k); err != nil {
					return err
				}
			}
			return nil
		}}
	}
	return []contender{
		one(nameMap, func(k int) error {
			held[names[k][0]].Store(&certs[k])
			return nil
		}),
		one(namePut, func(k int) error { return store.Put(placeID(2*places[k]), certs[k]) }),
		one(nameLoad, func(k int) error { return load(2*places[k] + 1) }),
	}, nil
}

// replaceInCertMagic takes one in and the one before out, which are two steps there.
func (b *bench) replaceInCertMagic(n int) (c contender, done func(), err error) {
	names := make([][]string, 2*n)
	for i := range names {
		names[i] = []string{host(i % n)}
	}
	certs, err := b.issueAll(names)
	if err != nil {
		return c, nil, err
	}
	config, cache := b.newCertMagic()
	ctx := context.Background()
	hashes := make([]string, n)
	for i := range n {
		if hashes[i], err = config.CacheUnmanagedTLSCertificate(ctx, certs[i], nil); err != nil {
			return c, nil, err
		}
	}
	k := n
	return contender{name: nameCertMagic, run: func(times int) error {
		for range times {
			hash, err := config.CacheUnmanagedTLSCertificate(ctx, certs[k], nil)
			if err != nil {
				return err
			}
			cache.Remove([]string{hashes[k%n]})
			hashes[k%n] = hash
			k = (k + 1) % len(certs)
		}
		return nil
	}}, cache.Stop, nil
}
