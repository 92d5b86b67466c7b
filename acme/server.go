// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/durable"
	ca "github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/http01"
)

// ID is the id of the certificate in the Store of a Server.
const ID = "acme"

// A Server has a certificate for its names and keeps it fresh until it is closed. Its
// methods may be called by any number of goroutines at once.
type Server struct {
	config Config
	want   request
	keep   keeper
	seed   string // of jitter: another in each of the processes that share a Cache
	log    *slog.Logger

	store   keyturn.Store
	first   gate          // of handshakes that the certificate does not exist for yet
	serving chan struct{} // closed once something was seen to arrive
	seen    sync.Once     // closes serving

	http  http01.Handler
	tls   challenges
	plain *http.Server   // at HTTPAddr; nil if there is none
	tasks sync.WaitGroup // serves plain

	// Of the goroutine of run alone.
	account   *ca.Account
	known     bool          // the CA knows the account
	issuer    *ca.CA        // nil before it was needed
	lock      *durable.Lock // nil while another process renews, and with a Cache
	unsaved   bool          // the state could not be written
	complaint string        // the last of lead

	asked  chan chan error // by Renew
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	pair  *pair // guarded by mu; nil: none is served
	state state // guarded by mu; written by the goroutine of run, and before it begins
	leads bool  // guarded by mu
}

// Open reads what is kept, serves the certificate if there is one, and begins to obtain
// and renew it. It does not wait for the CA; ctx bounds only what it reads. Begin to
// serve soon after: the CA is asked once the port is seen to be served, or a second
// later, and looks there. Close ends the Server.
func (c Config) Open(ctx context.Context) (*Server, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	return s, nil
}

func (c Config) open(ctx context.Context) (*Server, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	cache, seed := c.Cache, rand.Text()
	if cache == nil {
		seed = "" // one process renews
		if cache, err = openDir(c.Dir); err != nil {
			return nil, err
		}
	}
	s := &Server{
		seed: seed, config: c, want: c.wants(), log: c.Logger.With("names", c.Names),
		keep:    keeper{cache: cache, miss: c.CacheMiss, name: fileName(c.Names[0]), ca: c.Directory},
		serving: make(chan struct{}), asked: make(chan chan error), ended: make(chan struct{}),
	}
	s.tls.store = &s.store
	s.first.init()
	if _, err := s.lead(ctx); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	if err := s.listenHTTP(ctx); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	if s.plain != nil && c.Challenge == solver.HTTP01 || c.Solver != nil {
		s.serves()
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	go s.run(run)
	return s, nil
}

// unlock lets others renew.
func (s *Server) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Release()
}

// listenHTTP serves HTTPAddr.
func (s *Server) listenHTTP(ctx context.Context) error {
	if s.config.HTTPAddr == "" {
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.config.HTTPAddr)
	if err != nil {
		return err
	}
	s.plain = &http.Server{
		Handler: s.HTTPHandler(nil), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ReadTimeout: plainTimeout, WriteTimeout: plainTimeout, MaxHeaderBytes: 16 << 10,
	}
	s.tasks.Go(func() {
		if err := s.plain.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("plain HTTP is not served any more", "addr", s.config.HTTPAddr, "error", err)
		}
	})
	return nil
}

// plainTimeout is how long a request of plain HTTP, which has no body, and its answer
// may take.
const plainTimeout = 10 * time.Second

// Close ends renewals and what HTTPAddr serves, and returns when they have ended. An
// order that is under way is gone on with by whoever opens the directory next. What
// TLSConfig returned goes on to serve the certificate that is there.
func (s *Server) Close() error {
	s.cancel()
	<-s.ended
	if s.plain == nil {
		return nil
	}
	err := s.plain.Close()
	s.tasks.Wait()
	return err
}

// TLSConfig returns a new config for a server with the certificate: TLS 1.2 and later,
// HTTP/2 and HTTP/1.1. It is the caller's to change; set NextProtos where something other
// than HTTP is served. Its GetCertificate and GetConfigForClient have to stay in place:
// the second one answers challenges.
func (s *Server) TLSConfig() *tls.Config {
	config := s.store.ServerConfig()
	config.GetCertificate = s.certificate
	challenge := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		s.serves()
		return challenge(hello)
	}
	return config
}

// serves notes that the process serves.
func (s *Server) serves() { s.seen.Do(func() { close(s.serving) }) }

// Store returns the Store that has the certificate, under the id [ID]: to observe, to
// drain connections of old ones, to make it the default, or to put certificates of
// another origin beside it.
func (s *Server) Store() *keyturn.Store { return &s.store }

// Wait returns nil once there is a certificate for all of the names. If ctx ends before,
// the error says what the last attempt failed by.
func (s *Server) Wait(ctx context.Context) error {
	for {
		open, change, _ := s.first.look()
		if open {
			return nil
		}
		select {
		case <-change:
		case <-s.ended:
			return fmt.Errorf("acme: waiting for the first certificate: %w", errClosed)
		case <-ctx.Done():
			err := fmt.Errorf("acme: waiting for the first certificate: %w", ctx.Err())
			if f := s.Status().Failure; f != "" {
				err = fmt.Errorf("%w; the last attempt failed: %s", err, f)
			}
			return err
		}
	}
}
