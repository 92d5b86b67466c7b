// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/keyturn/keyturn"
)

// handshake measures full handshakes of TLS 1.3, both sides together, over a pipe in
// memory. A static config takes part twice: what lies between its two runs is noise.
func (b *bench) handshake() ([]row, error) {
	f, err := b.newField(1)
	if err != nil {
		return nil, err
	}
	contenders, done, err := b.handshakers(f)
	if err != nil {
		return nil, err
	}
	defer done()
	all, err := interleave(b.rounds, 5*b.slice, contenders)
	if err != nil {
		return nil, err
	}
	for i, c := range contenders {
		if all[i].allocs, err = allocations(c, min(b.rounds, 200)); err != nil {
			return nil, err
		}
	}
	noise := ratio(all[1], all[0])
	var rows []row
	for i, s := range all {
		r := row{Work: "full TLS 1.3 handshake", Contender: s.contender, Figure: spreadOf(s.ns), Unit: "ns", Allocs: &s.allocs}
		if i > 0 {
			r.Ratio, r.Than = new(ratio(s, all[0])), all[0].contender
		}
		if s.contender == nameStore || s.contender == nameTrust {
			most := all[0].allocs + 1 // crypto/tls describes the client for GetConfigForClient
			r.aim(fmt.Sprintf("≤ %.2f × static, ≤ %d allocs", noise.High, most), r.Ratio.Median <= noise.High && s.allocs <= most)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// handshakers returns one handshake with each kind of server, all with the certificate
// of f. The first two are the same static config.
func (b *bench) handshakers(f *field) (contenders []contender, done func(), err error) {
	hello, disconnect, err := realHello(f.fallback)
	if err != nil {
		return nil, nil, err
	}
	defer disconnect()
	store := new(keyturn.Store)
	if err := store.Put("id", f.certs[0]); err != nil {
		return nil, nil, err
	}
	add := func(name string, config *tls.Config) {
		client := &tls.Config{ServerName: host(0), InsecureSkipVerify: true} // whose work is its own
		contenders = append(contenders, contender{name: name, run: func(times int) error {
			for range times {
				if _, err := shake(client, config); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		}})
	}
	plain := func() *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	}
	static := plain()
	static.Certificates = f.certs[:1]
	add("static "+nameStatic, static)
	add("static again", static.Clone())
	add(nameStore, store.ServerConfig())
	add(nameTrust, new(keyturn.Trust).ServerConfig(store.ServerConfig()))

	magic, err1 := b.holdInCertMagic(f)
	auto, err2 := b.holdInAutocert(f, hello)
	watcher, err3 := b.holdInWatcher(f.certs[0])
	pemfile, err4 := b.holdInPemfile(f.certs[0])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, nil, err
	}
	peers := []*holder{magic, auto, watcher, pemfile}
	for _, h := range peers {
		config := plain()
		config.GetCertificate = h.choose
		add(h.name, config)
	}
	return contenders, func() {
		for _, h := range peers {
			h.close()
		}
	}, nil
}

// shake does one handshake and returns the client's view of it.
func shake(client, server *tls.Config) (tls.ConnectionState, error) {
	a, z := net.Pipe()
	served := make(chan error, 1)
	go func() {
		err := tls.Server(z, server).Handshake()
		z.Close()
		served <- err
	}()
	c := tls.Client(a, client)
	err := c.Handshake()
	a.Close()
	// The server's is the reason where both failed, and first where it is.
	if err := errors.Join(<-served, err); err != nil {
		return tls.ConnectionState{}, err
	}
	state := c.ConnectionState()
	if state.DidResume || state.Version != tls.VersionTLS13 {
		return state, errors.New("not a full handshake of TLS 1.3")
	}
	return state, nil
}
