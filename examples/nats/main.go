// SPDX-License-Identifier: Apache-2.0

// Command nats is a client of NATS that shows a certificate which is issued when it
// connects, and renewed in the background. The server, which runs in the same process here,
// lets in nobody without one, and its own comes from a Source as well. When the connection
// is lost, the client connects anew, with the certificate of then.
//
//	go run ./examples/nats
//	go run ./examples/nats --lifetime 10s --reconnect 3s
//
// The CA is gone with the process. A real client has an Issuer that leads to the CA of all.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("nats", flag.ContinueOnError)
	lifetime := flags.Duration("lifetime", 5*time.Minute, "how long certificates are valid")
	reconnect := flags.Duration("reconnect", time.Minute, "how long a connection goes on with an old certificate")
	as := flags.String("as", "spiffe://example.org/ns/prod/sa/web", "name of the client")
	listen := flags.Int("port", 4222, "port of 127.0.0.1 to listen on; -1 is any")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ca, err := localca.New(localca.Config{Lifetime: *lifetime})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root())

	source := &ondemand.Source{Issuer: ca, CommonName: "nats.internal", Names: []string{"127.0.0.1"}}
	defer source.Close()
	peers, err := keyturn.ParsePeers("spiffe://example.org/ns/*/sa/web")
	if err != nil {
		return err
	}
	srv, err := serve(*listen, source, roots, peers)
	if err != nil {
		return err
	}
	defer srv.WaitForShutdown()
	defer srv.Shutdown()

	identity := &ondemand.Source{Issuer: ca, CommonName: *as}
	defer identity.Close()
	return talk(ctx, srv.ClientURL(), &tls.Config{
		GetClientCertificate: identity.GetClientCertificate,
		RootCAs:              roots,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := fmt.Fprintf(out, "connected to %x\n", state.PeerCertificates[0].SerialNumber)
			return err
		},
	}, *reconnect, out)
}

// serve runs a NATS server that believes the peers.
func serve(port int, source *ondemand.Source, roots *x509.CertPool, peers *keyturn.Peers) (*server.Server, error) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
		TLS: true, TLSVerify: true, TLSTimeout: 10,
		TLSConfig: &tls.Config{
			GetCertificate:   source.GetCertificate,
			ClientAuth:       tls.RequireAndVerifyClientCert,
			ClientCAs:        roots,
			VerifyConnection: peers.VerifyConnection,
		},
	})
	if err != nil {
		return nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		srv.Shutdown()
		return nil, errors.New("the NATS server does not begin to listen")
	}
	return srv, nil
}

// talk sends messages to itself, and connects anew from time to time: a connection keeps
// the certificate with which it began.
func talk(ctx context.Context, url string, config *tls.Config, reconnect time.Duration, out io.Writer) error {
	conn, err := nats.Connect(url, nats.Secure(config), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.Timeout(time.Minute))
	if err != nil {
		return err
	}
	defer conn.Close()
	messages, err := conn.SubscribeSync("greetings")
	if err != nil {
		return err
	}
	again := time.NewTicker(reconnect)
	defer again.Stop()
	for {
		if err := conn.Publish("greetings", []byte("hello")); err != nil {
			return err
		}
		m, err := messages.NextMsgWithContext(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		if _, err := fmt.Fprintf(out, "received %s\n", m.Data); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			if err := conn.ForceReconnect(); err != nil {
				return err
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ended is nil if the program is to end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
