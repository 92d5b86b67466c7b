// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every connection after the change gets the new certificate, none fails, and one from
// before ends after a line.
func TestRotation(t *testing.T) {
	ca, files := exampletest.NewCA(t), exampletest.NewPair(t)
	cert, first := ca.Issue(t)
	files.Write(t, cert)
	address := exampletest.Start(t, run, "--cert", files.Cert, "--key", files.Key, "--listen", "127.0.0.1:0", "--drain", "1h").After("serving on ")

	connect := func() (conn *tls.Conn, served string) {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: ca.Pool()})
		if err != nil {
			t.Fatal(err)
		}
		return conn, conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	// say reports whether a line came back.
	say := func(conn net.Conn, line string) bool {
		if _, err := fmt.Fprintln(conn, line); err != nil {
			return false
		}
		answer := bufio.NewScanner(conn)
		if answer.Scan() && answer.Text() != line {
			t.Errorf("answered %q to %q", answer.Text(), line)
		}
		return answer.Text() != ""
	}

	old, served := connect()
	defer old.Close()
	if served != first || !say(old, "hello") {
		t.Errorf("served %s, want %s, and an answer", served, first)
	}
	cert, second := ca.Issue(t)
	files.Write(t, cert)
	for served != second {
		conn, now := connect()
		if now != first && now != second || !say(conn, "hello") {
			t.Fatalf("served %s, and there was no answer", now)
		}
		conn.Close()
		served = now
	}
	for say(old, "hello again") {
	}
}
