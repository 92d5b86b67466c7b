// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
)

func server(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("quic server", flag.ContinueOnError)
	cert := flags.String("cert", "cert.pem", "file with the certificate chain, as PEM")
	key := flags.String("key", "key.pem", "file with the private key, as PEM")
	listen := flags.String("listen", "localhost:8446", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var store keyturn.Store
	watcher, err := reload.Watch(reload.Options{SIGHUP: true}, reload.KeyPair(&store, "quic", *cert, *key))
	if err != nil {
		return err
	}
	defer watcher.Close()
	config := store.ServerConfig()
	config.NextProtos = []string{protocol}
	// To ask for client certificates as well: config = trust.ServerConfig(config)
	return serve(ctx, *listen, config, out)
}

// serve sends back what comes on a stream, until ctx ends.
func serve(ctx context.Context, address string, config *tls.Config, out io.Writer) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	defer packets.Close()
	transport := &quic.Transport{Conn: packets}
	defer transport.Close()
	listener, err := transport.ListenEarly(config, &quic.Config{Allow0RTT: true})
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Fprintln(out, "serving on", listener.Addr())
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return nil // ctx has ended
		}
		open.Go(func() {
			defer conn.CloseWithError(0, "")
			stream, err := conn.AcceptStream(ctx)
			if err != nil {
				return
			}
			_, _ = io.Copy(stream, stream)
			_ = stream.Close()
			select {
			case <-conn.Context().Done(): // the client has read it
			case <-ctx.Done():
			}
		})
	}
}
