// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"unsafe"
)

// A field is what one work of choosing is about: certificates, what is asked, and what
// takes their place meanwhile.
type field struct {
	certs    []tls.Certificate
	fallback tls.Certificate // answers what nothing else fits

	// asked are server names in a random order, a power of two of each kind.
	asked map[string][]string

	// replaced are places in certs, and turns what stands there in turn: the one of
	// before and one newer.
	replaced []int
	turns    [][2]tls.Certificate
}

// kinds of asking, in the order of the table.
var kinds = []string{"hit", "wildcard", "miss"}

const (
	fallbackName = "default.example.org"
	mostAsked    = 1 << 16 // names of each kind
	replacedMost = 64
	perCert      = 100 // names, from manyNames on
	manyNames    = 1_000_000
)

// newField makes a field of n names, half of which are wildcards. Each has a certificate
// of its own; a million share ten thousand certificates, since who chooses does not look
// into them and a million of them take gigabytes.
func (b *bench) newField(n int) (*field, error) {
	each := 1
	if n >= manyNames {
		each = perCert
	}
	var names [][]string
	switch {
	case n == 1:
		names = [][]string{{host(0), "*" + zone(1)}}
	default:
		for i := range n {
			if i%each == 0 {
				names = append(names, nil)
			}
			name := host(i)
			if i%2 == 1 {
				name = "*" + zone(i)
			}
			names[i/each] = append(names[i/each], name)
		}
	}
	certs, err := b.issueAll(names)
	if err != nil {
		return nil, err
	}
	f := &field{certs: certs, asked: make(map[string][]string)}
	if f.fallback, err = b.ca.issue(fallbackName); err != nil {
		return nil, err
	}
	for _, i := range rand.Perm(len(certs))[:min(len(certs), replacedMost)] {
		newer, err := b.ca.issue(names[i]...)
		if err != nil {
			return nil, err
		}
		f.replaced = append(f.replaced, i)
		f.turns = append(f.turns, [2]tls.Certificate{certs[i], newer})
	}
	for range mostAsked {
		i := rand.IntN(max(n, 2)) &^ 1
		f.asked["hit"] = append(f.asked["hit"], host(i))
		f.asked["wildcard"] = append(f.asked["wildcard"], fmt.Sprintf("www-%d%s", i, zone(i+1)))
		f.asked["miss"] = append(f.asked["miss"], fmt.Sprintf("host-%d.example.net", i))
	}
	return f, nil
}

func host(i int) string { return fmt.Sprintf("host-%d.example.com", i) }
func zone(i int) string { return fmt.Sprintf(".zone-%d.example.com", i) }

// A holder is a contender that holds a field.
type holder struct {
	name   string
	choose func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// replace makes cert serve in place of the certificate at place i of the field.
	// It is nil for one that cannot be told to.
	replace func(i int, cert *tls.Certificate) error

	// kinds are those that it has an answer to.
	kinds []string
	close func()
}

// check holds that h serves the very certificates of f, as the others do.
func (h *holder) check(f *field, hello tls.ClientHelloInfo) error {
	for _, kind := range h.kinds {
		for _, name := range f.asked[kind][:256] {
			hello.ServerName = name
			cert, err := h.choose(&hello)
			if err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
			want := fallbackName
			if kind != "miss" {
				want = name
			}
			if err := cert.Leaf.VerifyHostname(want); err != nil || !bytes.Equal(cert.Leaf.Raw, cert.Certificate[0]) {
				return fmt.Errorf("%s chose a wrong certificate for %s: %w", h.name, name, err)
			}
		}
	}
	return nil
}

// ask returns the work of choosing: names are asked one after the other, in a hello that
// is at hand, as it is in a handshake. Which is next depends on the answer, or so it must
// seem to the processor: it would begin with the next ones while this one waits for
// memory, which no handshake can. With ahead it may, as in a benchmark that only loops.
func (h *holder) ask(names []string, hello tls.ClientHelloInfo, ahead bool) contender {
	at := 0
	return contender{name: h.name, run: func(times int) error {
		for range times {
			hello.ServerName = names[at&(len(names)-1)]
			cert, err := h.choose(&hello)
			if cert == nil || err != nil {
				return fmt.Errorf("%s has no certificate for %s: %w", h.name, hello.ServerName, err)
			}
			at++
			if !ahead {
				at += int(uintptr(unsafe.Pointer(cert)) >> 63) // the upper half is never the heap's
			}
		}
		return nil
	}}
}

// realHello returns what a server is told of a client of crypto/tls that connected over
// loopback. The connection stays open until done is called.
func realHello(cert tls.Certificate) (hello tls.ClientHelloInfo, done func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return hello, nil, err
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return hello, nil, err
	}
	server, err := listener.Accept()
	if err != nil {
		client.Close()
		return hello, nil, err
	}
	done = func() {
		client.Close()
		server.Close()
	}
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: fallbackName, InsecureSkipVerify: true}).Handshake()
	}()
	err = tls.Server(server, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		// Without its context, which ends with the handshake.
		hello = tls.ClientHelloInfo{
			CipherSuites: h.CipherSuites, SupportedCurves: h.SupportedCurves, SupportedPoints: h.SupportedPoints,
			SignatureSchemes: h.SignatureSchemes, SupportedProtos: h.SupportedProtos, SupportedVersions: h.SupportedVersions,
			Extensions: h.Extensions, Conn: h.Conn,
		}
		return &cert, nil
	}}).Handshake()
	if err != nil {
		done()
		return hello, nil, err
	}
	return hello, done, nil
}
