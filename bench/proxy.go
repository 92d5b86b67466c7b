// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/proxy"
)

const (
	nameBare  = "httputil.ReverseProxy"
	nameProxy = "keyturn proxy"

	// proxyClients is how many requests are under way at once.
	proxyClients = 8
	// shareOfBare is how many requests there have to be for one of the bare proxy.
	shareOfBare = 0.9
)

// proxied measures requests through the proxy, beside net/http's alone with the same
// certificate, which stays as it is, and as many connections to the service.
func (b *bench) proxied() (rows []row, err error) {
	f, err := b.newField(1)
	if err != nil {
		return nil, err
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) }))
	defer service.Close()
	bare, err := bareProxy(f.certs[0], service.URL)
	if err != nil {
		return nil, err
	}
	defer bare.Close()
	ours, stop, err := ownProxy(f.certs[0], service.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	defer stop()
	for version := 1; version <= 2; version++ {
		all, err := interleave(max(3, b.rounds/10), 100*b.slice, []contender{
			requests(nameBare, bare.Listener.Addr().String(), version), requests(nameProxy, ours, version),
		})
		if err != nil {
			return rows, err
		}
		for i, s := range all {
			r := row{Work: fmt.Sprintf("request by HTTP/%d", version), Contender: s.contender, Figure: spreadOf(s.ns), Unit: "ns"}
			if i > 0 {
				r.Ratio, r.Than = new(ratio(s, all[0])), nameBare
				r.aim(fmt.Sprintf("≥ %.1f × its requests a second", shareOfBare), r.Ratio.Median <= 1/shareOfBare)
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// bareProxy is what the standard library has, with connections to the service kept for
// all clients: by itself it keeps two.
func bareProxy(cert tls.Certificate, service string) (*httptest.Server, error) {
	to, err := url.Parse(service)
	if err != nil {
		return nil, err
	}
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	})
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	return s, nil
}

func ownProxy(cert tls.Certificate, service string) (address string, stop func(), err error) {
	store := new(keyturn.Store)
	if err := store.Put("id", cert); err != nil {
		return "", nil, err
	}
	to, err := proxy.ParseTarget(service)
	if err != nil {
		return "", nil, err
	}
	p, err := proxy.New(proxy.Config{To: to, TLS: store.ServerConfig(), Store: store, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() { _ = p.Serve(l) }() // the requests say what has failed
	return l.Addr().String(), func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		p.Drain(now)
	}, nil
}

// requests has clients make requests at the same time, on connections that are kept.
func requests(name, address string, version int) contender {
	t := &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: host(0), InsecureSkipVerify: true}, // whose work is its own
		Protocols:       new(http.Protocols), MaxIdleConnsPerHost: proxyClients, DisableCompression: true,
	}
	t.Protocols.SetHTTP1(version == 1)
	t.Protocols.SetHTTP2(version == 2)
	client := &http.Client{Transport: t}
	return contender{name: name, run: func(times int) error {
		errs := make([]error, proxyClients)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				for n := i; n < times && errs[i] == nil; n += proxyClients {
					errs[i] = request(client, "https://"+address+"/")
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}}
}

func request(c *http.Client, url string) error {
	res, err := c.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || n != 1000) {
		err = fmt.Errorf("%s: %d, %d bytes", url, res.StatusCode, n)
	}
	return err
}
