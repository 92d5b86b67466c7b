// SPDX-License-Identifier: Apache-2.0

// Package embedded runs a NATS server with JetStream inside the process: the
// bus of those who shall not need another program.
//
// Every entry is fsynced before it is acknowledged. Every client is
// authenticated: the server trusts one operator key, made at the first start,
// which signs accounts, whose signing keys sign the clients' credentials; the keys
// lie 0600 in the server's directory. There is one listener: no monitoring
// port, no cluster, leaf node, WebSocket or MQTT port.
//
// On a loopback address connections are not encrypted. On any other they are, by
// TLS 1.3 alone, with a certificate of a CA that is made at the first start and
// that clients pin; see [Server.Roots]. The certificate turns while the server
// runs.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/durable"
)

// ErrAddressInUse means that another program listens on the address.
var ErrAddressInUse = errors.New("address already in use")

// startTimeout bounds the start, in which JetStream reads its files.
const startTimeout = 2 * time.Minute

// helloTimeout bounds the TLS handshake, and then the login, in seconds: a whole
// fleet may come back at once.
const helloTimeout = 10

// maxControlLine bounds what logs a client in, in bytes. NATS' own 4096 are too
// few for the credentials of a replica whose group has a long name.
const maxControlLine = 16 << 10

// Config says where the server lives.
type Config struct {
	// Dir holds the keys and the JetStream files. It is made with mode 0700.
	Dir string
	// Listen is an IP address and a port, "127.0.0.1:14222"; port 0 picks a free
	// one. On an address that is not loopback, connections are by TLS.
	Listen string
	// Advertise are the names and addresses by which other machines reach the
	// server, the preferred one first; its certificate is for these, and for this
	// machine's loopback. Empty means Listen's address; where that is 0.0.0.0 or
	// [::], all addresses of this machine, and its name. It has to be empty on a
	// loopback address.
	Advertise []string
	// Tenants have accounts of their own, and so cannot reach each other, whatever
	// credentials their managers make. All others share one.
	Tenants []string
	// Salvage has the server start with messages that are not what was written, to
	// read what is left. It may leave out more than these, and must not be written to.
	Salvage bool
	// Logger gets the server's messages; nil is slog.Default.
	Logger *slog.Logger
}

// A Server is a running NATS server. It is safe for concurrent use.
type Server struct {
	server    *server.Server
	keys      keys
	accounts  map[string]*account // by tenant; that of "" is the others'
	inside    []*nats.Conn        // one to each account
	logger    *slog.Logger
	address   address
	advertise []string
	cert      *certificate // nil without TLS

	stop context.CancelFunc // ends what runs beside the server
	runs sync.WaitGroup
}

// Start starts the server and returns when it takes connections. The error is
// ErrDamaged where its files have messages that are not what was written.
func Start(c Config) (_ *Server, err error) {
	s := &Server{stop: func() {}, advertise: slices.Clone(c.Advertise), logger: cmp.Or(c.Logger, slog.Default())}
	if s.address, err = parseAddress(c.Listen); err != nil {
		return nil, err
	}
	for _, h := range c.Advertise {
		if err := checkHost(h); err != nil {
			return nil, err
		}
	}
	if err := durable.MkdirAll(c.Dir); err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	opts := &server.Options{
		ServerName:             "keyturn",
		Host:                   s.address.host,
		Port:                   s.address.port,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               filepath.Join(c.Dir, storeDir),
		SyncAlways:             true,
		DisableJetStreamBanner: true,
		MaxPayload:             bus.MaxData + 64<<10,
		MaxControlLine:         maxControlLine,
		AuthTimeout:            2 * helloTimeout, // counted from before the handshake
		TLSTimeout:             helloTimeout,
	}
	if err := s.trust(c, opts); err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	if err := s.secure(c, opts); err != nil {
		return nil, err
	}
	if err := s.address.free(); err != nil {
		return nil, err
	}
	if err := checkBlocks(opts.StoreDir, c.Salvage); err != nil {
		return nil, err
	}
	log := newLogger(c.Logger)
	if s.server, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	s.server.SetLoggerV2(log, false, false, false)
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.server.Start()
	}()
	select {
	case <-started:
	case <-time.After(startTimeout):
		// It cannot be stopped in the middle of this, either.
		return nil, fmt.Errorf("%w, or there are very many of them: NATS does not come to the end of them in %v: %s", ErrDamaged, startTimeout, log.lastFatal())
	}
	if !s.server.ReadyForConnections(startTimeout) {
		s.Shutdown()
		return nil, fmt.Errorf("embedded bus: NATS did not start on %s: %s", c.Listen, log.lastFatal())
	}
	if !s.server.JetStreamEnabled() {
		s.Shutdown()
		return nil, fmt.Errorf("embedded bus: JetStream did not start: %s", log.lastFatal())
	}
	if err := s.hearRevocations(); err != nil {
		s.Shutdown()
		return nil, err
	}
	s.keepCertificate()
	return s, nil
}

// trust loads the keys and makes them what the server trusts.
func (s *Server) trust(c Config, opts *server.Options) (err error) {
	if s.keys, err = loadKeys(c.Dir); err != nil {
		return err
	}
	if s.accounts, err = loadAccounts(c.Dir, c.Tenants); err != nil {
		return err
	}
	if err := s.keys.trust(opts); err != nil {
		return err
	}
	for _, a := range s.accounts {
		if err := a.trust(s.keys, opts.AccountResolver); err != nil {
			return err
		}
	}
	return nil
}

// account is the one that a tenant is in.
func (s *Server) account(tenant string) *account {
	if a := s.accounts[tenant]; a != nil {
		return a
	}
	return s.accounts[""]
}

// secure gives the server a certificate where others can reach it.
func (s *Server) secure(c Config, opts *server.Options) error {
	if s.address.local() {
		if len(c.Advertise) > 0 {
			return fmt.Errorf("embedded bus: other machines cannot reach %s: listen on an address of this machine that they can, or on 0.0.0.0", c.Listen)
		}
		return nil
	}
	authority, err := loadAuthority(c.Dir)
	if err != nil {
		return fmt.Errorf("embedded bus: %w", err)
	}
	if len(s.advertise) == 0 {
		if s.advertise, err = s.address.hosts(); err != nil {
			return err
		}
	}
	hosts := slices.Clone(s.advertise)
	for _, h := range []string{s.address.near(), "localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	if s.cert, err = newCertificate(authority, hosts, cmp.Or(c.Logger, slog.Default())); err != nil {
		return fmt.Errorf("embedded bus: %w", err)
	}
	opts.TLS = true
	opts.TLSConfig = s.cert.config()
	return nil
}

func (s *Server) keepCertificate() {
	if s.cert == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.runs.Go(func() { s.cert.run(ctx) })
}

// URL is where clients on this machine connect.
func (s *Server) URL() string { return s.url(s.address.near()) }

// URLs are where clients on other machines connect, the preferred one first; on
// a loopback address, URL alone.
func (s *Server) URLs() []string {
	if s.cert == nil {
		return []string{s.URL()}
	}
	var urls []string
	for _, h := range s.advertise {
		urls = append(urls, s.url(h))
	}
	return urls
}

func (s *Server) url(host string) string {
	scheme := "nats"
	if s.cert != nil {
		scheme = "tls"
	}
	port := s.server.Addr().(*net.TCPAddr).Port
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// Roots are the CA certificates (DER) that clients know the server by; none on a
// loopback address.
func (s *Server) Roots() [][]byte {
	if s.cert == nil {
		return nil
	}
	return [][]byte{s.cert.authority.root()}
}

// Secret is what jetstream.NewMint makes the credentials of a tenant's users of.
// It holds the seed of his account's signing key, and no other.
func (s *Server) Secret(tenant string) []byte { return slices.Clone(s.account(tenant).secret) }

// Shutdown ends the server and returns when its files are closed.
func (s *Server) Shutdown() {
	s.stop()
	s.runs.Wait()
	for _, nc := range s.inside {
		nc.Close()
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
