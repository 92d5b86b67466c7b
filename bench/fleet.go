// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// A fleet is the bus of `keyturn serve`, a manager's connection to it, and whose
// certificates it carries.
type fleet struct {
	dir    string
	config embedded.Config
	serve  func(embedded.Config) (serving, func(), error)
	stop   func() // ends the server
	serving
	log    bus.Conn
	signer *seal.SigningKey
	key    *seal.PrivateKey                    // of every group
	put    func(key string, data []byte) error // instead of appending, unless nil
	ends   []func()

	mu     sync.Mutex
	newest map[string]bus.Position // guarded by mu; by key
}

func (b *bench) newFleet() (*fleet, error) { return b.fleetOn(serveHere) }

// newFleetApart is newFleet with the server in a process of its own.
func (b *bench) newFleetApart() (*fleet, error) {
	return b.fleetOn(func(c embedded.Config) (serving, func(), error) { return serveApart(c, b.stderr) })
}

func (b *bench) fleetOn(serve func(embedded.Config) (serving, func(), error)) (_ *fleet, err error) {
	f := &fleet{serve: serve, newest: make(map[string]bus.Position)}
	if f.dir, err = os.MkdirTemp(b.dir, "fleet-"); err != nil {
		return nil, err
	}
	if f.signer, err = seal.GenerateSigningKey(); err != nil {
		return nil, err
	}
	if f.key, err = seal.GenerateKey(); err != nil {
		return nil, err
	}
	f.config = embedded.Config{Dir: filepath.Join(f.dir, "bus"), Listen: "127.0.0.1:0", Logger: quiet()}
	if err := f.start(); err != nil {
		return nil, err
	}
	if f.log, err = f.connect("manager", f.Creds); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start starts the server, from the second time on where it was.
func (f *fleet) start() error {
	now, stop, err := f.serve(f.config)
	if err != nil {
		f.stop = func() {}
		return err
	}
	f.serving, f.stop = now, stop
	f.config.Listen = strings.TrimPrefix(f.URL, "nats://")
	return nil
}

func (f *fleet) close() {
	for _, end := range f.ends {
		end()
	}
	f.log.Close()
	f.stop()
}

func (f *fleet) connect(name string, creds []byte) (bus.Conn, error) {
	path := filepath.Join(f.dir, name+".creds")
	if err := os.WriteFile(path, creds, 0o600); err != nil {
		return nil, err
	}
	conn, err := jetstream.Connect(jetstream.Options{URL: f.URL, Creds: path, Logger: quiet()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := conn.Connected(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// join connects as a member of a group, with the rights of one.
func (f *fleet) join(group string) (id string, _ bus.Conn, err error) {
	mint, err := jetstream.NewMint(f.Secret)
	if err != nil {
		return "", nil, err
	}
	id = event.NewID()
	creds, err := f.creds(func(user string) (string, error) { return mint.Replica(manager.DefaultTenant, group, id, user) })
	if err != nil {
		return "", nil, err
	}
	conn, err := f.connect(id, creds)
	return id, conn, err
}

func (f *fleet) creds(grant func(user string) (string, error)) ([]byte, error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	user, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	token, err := grant(user)
	if err != nil {
		return nil, err
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(token, seed)
}

// dial connects with the engine's own client, as one who may do everything in the
// account. It comes back as soon as a replica does.
func (f *fleet) dial() (*nats.Conn, natsjs.JetStream, error) {
	seed, account, _ := bytes.Cut(f.Secret, []byte(" "))
	creds, err := f.creds(func(user string) (string, error) {
		signing, err := nkeys.FromSeed(seed)
		if err != nil {
			return "", err
		}
		claims := jwt.NewUserClaims(user)
		claims.IssuerAccount = string(account)
		return claims.Encode(signing)
	})
	if err != nil {
		return nil, nil, err
	}
	nc, err := nats.Connect(f.URL, nats.UserCredentialBytes(creds), nats.MaxReconnects(-1),
		nats.ReconnectWait(250*time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return nil, nil, err
	}
	js, err := natsjs.New(nc)
	return nc, js, err
}

// certificate returns the signed event of a generation.
func (f *fleet) certificate(b *bench, group, id string, generation uint64, names ...string) ([]byte, error) {
	cert, err := b.ca.issue(names...)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	c := &event.Certificate{
		Group: group, ID: id, Version: event.Version{Epoch: 1, Generation: generation}, Names: names,
		Chain: cert.Certificate, NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter, Algorithm: "ECDSA",
	}
	if err := c.SealKey(manager.DefaultTenant, f.key.Public(), key); err != nil {
		return nil, err
	}
	return event.Sign(f.signer, manager.DefaultTenant, time.Now(), c)
}

// managedID is the id of the i-th managed certificate.
func managedID(i int) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(i+1)))
}

// open verifies an event as a replica does.
func (f *fleet) open(key string, data []byte) (*event.Event, error) {
	return event.Open([]*seal.VerifyKey{f.signer.Public()}, manager.DefaultTenant, key, data)
}

// append makes data the newest entry of a key.
func (f *fleet) append(key string, data []byte) error {
	if f.put != nil {
		return f.put(key, data)
	}
	f.mu.Lock()
	after := f.newest[key]
	f.mu.Unlock()
	at, err := f.log.Append(context.Background(), key, after, data)
	if err == nil {
		f.mu.Lock()
		f.newest[key] = at
		f.mu.Unlock()
	}
	return err
}

func dotted(key string) string { return strings.ReplaceAll(key, "/", ".") }

// keyOf is the key of an entry that is heard at a subject.
func keyOf(subject string) string {
	key := strings.TrimSuffix(strings.TrimPrefix(subject, "ktnews."+manager.DefaultTenant+".log."), "._")
	return strings.ReplaceAll(key, ".", "/")
}

var errLate = errors.New("not all has come after five minutes")
