// SPDX-License-Identifier: Apache-2.0

// Package embedded runs a NATS server with JetStream inside the process: the
// bus of a machine that shall not need another program.
//
// Every entry is fsynced before it is acknowledged. Every client is
// authenticated: the server trusts one operator key, made at the first start,
// which signs one account, which signs the clients' credentials; the keys lie
// 0600 in the server's directory. There is one listener, on a loopback address:
// no monitoring port, no cluster, leaf node, WebSocket or MQTT port.
package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/durable"
)

// ErrAddressInUse means that another program listens on the address.
var ErrAddressInUse = errors.New("address already in use")

// startTimeout bounds the start, in which JetStream reads its files.
const startTimeout = 2 * time.Minute

// Config says where the server lives.
type Config struct {
	// Dir holds the keys and the JetStream files. It is made with mode 0700.
	Dir string
	// Listen is a loopback address, "127.0.0.1:14222"; port 0 picks a free one.
	Listen string
	// Logger gets the server's messages; nil is slog.Default.
	Logger *slog.Logger
}

// A Server is a running NATS server.
type Server struct {
	server *server.Server
	keys   keys
}

// Start starts the server and returns when it takes connections.
func Start(c Config) (*Server, error) {
	host, port, err := address(c.Listen)
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(c.Dir); err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	keys, err := loadKeys(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	opts := &server.Options{
		ServerName:             "keyturn",
		Host:                   host,
		Port:                   port,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               filepath.Join(c.Dir, "jetstream"),
		SyncAlways:             true,
		DisableJetStreamBanner: true,
		MaxPayload:             bus.MaxData + 64<<10,
	}
	if err := keys.trust(opts, nil); err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	if err := free(opts); err != nil {
		return nil, err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	log := newLogger(c.Logger)
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("embedded bus: NATS did not start on %s: %s", c.Listen, log.lastFatal())
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("embedded bus: JetStream did not start: %s", log.lastFatal())
	}
	return &Server{s, keys}, nil
}

// free says early, and in words, that the address is taken.
func free(o *server.Options) error {
	if o.Port == server.RANDOM_PORT {
		return nil
	}
	addr := net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("embedded bus: %s: %w", addr, ErrAddressInUse)
	}
	if err != nil {
		return fmt.Errorf("embedded bus: %w", err)
	}
	return l.Close()
}

func address(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("embedded bus: the address %q is not HOST:PORT", s)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("embedded bus: %q is not a loopback address: connections are not encrypted, so they must stay on this machine", s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("embedded bus: %q is not a port", p)
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}

// URL is where clients connect: nats://127.0.0.1:PORT.
func (s *Server) URL() string { return s.server.ClientURL() }

// Shutdown ends the server and returns when its files are closed.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
