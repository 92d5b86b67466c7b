// SPDX-License-Identifier: Apache-2.0

// Package port holds a port of the host for as long as there is something to answer on
// it, and no longer: whatever else wants it can have it in between.
package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Bounds of what strangers can take.
const (
	timeout  = 10 * time.Second
	maxBytes = 8 << 10 // of a request's header
)

// A Port is a server's port. Its zero value is not held. It must not be copied after
// first use.
type Port struct {
	mu     sync.Mutex
	users  int           // guarded by mu
	server *http.Server  // guarded by mu; nil while there are no users
	ended  chan struct{} // guarded by mu; closed when server has
}

// Hold makes addr, HOST:PORT, answer with handler to connections that accept returns,
// until every Hold was ended by a Release. With users already there it changes nothing
// but their number. A nil accept takes connections as they are.
func (p *Port) Hold(ctx context.Context, addr string, accept func(net.Listener) net.Listener, handler http.Handler) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users > 0 {
		p.users++
		return nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening on %s to answer a challenge: %w%s", addr, err, remedy(err))
	}
	if accept != nil {
		listener = accept(listener)
	}
	server := &http.Server{
		Handler: handler, ReadTimeout: timeout, WriteTimeout: timeout, IdleTimeout: timeout, MaxHeaderBytes: maxBytes,
		ErrorLog: log.New(io.Discard, "", 0), // what strangers do wrong is nobody's concern
	}
	server.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	p.users, p.server, p.ended = 1, server, ended
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // ends with Release; whoever asks before it finds nobody, and the CA says so
	}()
	return nil
}

func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program serves there: let that one answer (webroot, handler, or over the bus), or move it"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 take the capability CAP_NET_BIND_SERVICE"
	}
	return ""
}

// Release ends one Hold. After the last one the port is free when it returns.
func (p *Port) Release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users > 0 {
		return nil
	}
	err := p.server.Close()
	<-p.ended
	p.server, p.ended = nil, nil
	return err
}
