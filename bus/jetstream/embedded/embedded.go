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
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
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
	server  *server.Server
	account nkeys.KeyPair
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
	if err := keys.trust(opts); err != nil {
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
	return &Server{s, keys.account}, nil
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

// ManagerCreds makes credentials, in the format of a NATS .creds file, for a
// manager of the tenant: all of its stream, and no other.
func (s *Server) ManagerCreds(tenant string) ([]byte, error) {
	stream := jetstream.StreamName(tenant)
	return s.creds("manager", func(inbox string, p *jwt.Permissions) {
		p.Pub.Allow.Add(
			jetstream.SubjectPrefix(tenant)+">",
			"$JS.API.INFO",
			"$JS.API.STREAM.CREATE."+stream,
			"$JS.API.STREAM.INFO."+stream,
			"$JS.API.STREAM.MSG.GET."+stream,
			"$JS.API.CONSUMER.CREATE."+stream+".>",
			"$JS.FC."+stream+".>",
		)
		p.Sub.Allow.Add(inbox)
	})
}

// ReplicaCreds makes credentials for replicas of one group: they can follow the
// group's scope, and write nothing.
func (s *Server) ReplicaCreds(tenant, group string) ([]byte, error) {
	stream := jetstream.StreamName(tenant)
	return s.creds("replica-"+group, func(inbox string, p *jwt.Permissions) {
		p.Pub.Allow.Add(
			"$JS.API.STREAM.INFO."+stream,
			"$JS.API.CONSUMER.CREATE."+stream+".*."+jetstream.Filter(tenant, "group/"+group),
			"$JS.FC."+stream+".>",
		)
		p.Sub.Allow.Add(inbox)
	})
}

func (s *Server) creds(name string, allow func(inbox string, p *jwt.Permissions)) ([]byte, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	public, err := user.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = name
	allow(jetstream.InboxPrefix(public)+".>", &claims.Permissions)
	token, err := claims.Encode(s.account)
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	return jwt.FormatUserConfig(token, seed)
}

// keys are what the server's trust hangs on.
type keys struct{ operator, account, system nkeys.KeyPair }

func loadKeys(dir string) (k keys, err error) {
	for name, to := range map[string]struct {
		key  *nkeys.KeyPair
		make func() (nkeys.KeyPair, error)
	}{
		"operator.nk": {&k.operator, nkeys.CreateOperator},
		"account.nk":  {&k.account, nkeys.CreateAccount},
		"system.nk":   {&k.system, nkeys.CreateAccount},
	} {
		if *to.key, err = loadKey(filepath.Join(dir, name), to.make); err != nil {
			return k, err
		}
	}
	return k, nil
}

func loadKey(path string, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, error) {
	seed, err := durable.ReadPrivate(path, 1024)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := create()
		if err != nil {
			return nil, err
		}
		seed, err := key.Seed()
		if err != nil {
			return nil, err
		}
		return key, durable.CreateFile(path, seed, durable.PrivateFile)
	}
	if err != nil {
		return nil, err
	}
	key, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return key, nil
}

// trust makes the server trust the operator and know its two accounts.
func (k keys) trust(o *server.Options) error {
	operatorPub, err := k.operator.PublicKey()
	if err != nil {
		return err
	}
	systemPub, err := k.system.PublicKey()
	if err != nil {
		return err
	}
	operator := jwt.NewOperatorClaims(operatorPub)
	operator.Name = "keyturn"
	operator.SystemAccount = systemPub
	o.TrustedOperators = []*jwt.OperatorClaims{operator}
	o.SystemAccount = systemPub
	resolver := &server.MemAccResolver{}
	o.AccountResolver = resolver
	for name, pair := range map[string]nkeys.KeyPair{"KEYTURN": k.account, "SYS": k.system} {
		public, err := pair.PublicKey()
		if err != nil {
			return err
		}
		claims := jwt.NewAccountClaims(public)
		claims.Name = name
		if name == "KEYTURN" {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{
				MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
				MaxAckPending: jwt.NoLimit,
			}
		}
		token, err := claims.Encode(k.operator)
		if err != nil {
			return err
		}
		if err := resolver.Store(public, token); err != nil {
			return err
		}
	}
	return nil
}
