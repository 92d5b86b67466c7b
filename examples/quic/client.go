// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
)

func client(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("quic client", flag.ContinueOnError)
	ca := flags.String("ca", "cert.pem", "file or directory with the CA certificates of the server")
	connect := flags.String("connect", "localhost:8446", "address to connect to")
	every := flags.Duration("every", time.Second, "time between two connections")
	fresh := flags.Bool("fresh", false, "resume no sessions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(*connect)
	if err != nil {
		return err
	}
	var trust keyturn.Trust
	watcher, err := reload.Watch(reload.Options{SIGHUP: true}, reload.CAs(*ca, trust.SetRootCAs))
	if err != nil {
		return err
	}
	defer watcher.Close()
	config := trust.ClientConfig(host)
	config.NextProtos = []string{protocol}
	if *fresh {
		config.ClientSessionCache = nil
	}
	for ctx.Err() == nil {
		if state, err := say(ctx, *connect, config, "hello"); err != nil {
			fmt.Fprintln(out, "failed:", err)
		} else {
			fmt.Fprintf(out, "certificate %s, resumed %t\n", state.PeerCertificates[0].SerialNumber, state.DidResume)
		}
		select {
		case <-ctx.Done():
		case <-time.After(*every):
		}
	}
	return nil
}

// say sends what over a new connection, and makes sure that it comes back.
func say(ctx context.Context, address string, config *tls.Config, what string) (tls.ConnectionState, error) {
	conn, err := quic.DialAddr(ctx, address, config, nil)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.CloseWithError(0, "")
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	if _, err := io.WriteString(stream, what); err != nil {
		return tls.ConnectionState{}, err
	}
	if err := stream.Close(); err != nil {
		return tls.ConnectionState{}, err
	}
	answer, err := io.ReadAll(io.LimitReader(stream, int64(len(what)+1)))
	if err == nil && string(answer) != what {
		err = fmt.Errorf("%q came back for %q", answer, what)
	}
	return conn.ConnectionState().TLS, err
}
