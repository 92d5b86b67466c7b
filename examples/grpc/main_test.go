// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Both certificates change, and then the CA of both: trust both CAs, issue from the new one,
// remove the old one. Connections are made anew after each change, and no call fails.
func TestRotation(t *testing.T) {
	old, next := exampletest.NewCA(t), exampletest.NewCA(t)
	serverFiles, clientFiles := exampletest.NewPair(t), exampletest.NewPair(t)
	serverCAs, clientCAs := exampletest.NewCAs(t, old), exampletest.NewCAs(t, old)
	issue := func(ca *exampletest.CA, files exampletest.Pair) (serial string) {
		cert, serial := ca.Issue(t)
		files.Write(t, cert)
		return serial
	}
	serverSerial, clientSerial := issue(old, serverFiles), issue(old, clientFiles)

	server := exampletest.Start(t, run, "server", "--cert", serverFiles.Cert, "--key", serverFiles.Key, "--ca", serverCAs, "--listen", "127.0.0.1:0", "--age", "100ms")
	address := server.After("serving on ")
	start := func(files exampletest.Pair) *exampletest.Program {
		return exampletest.Start(t, run, "client", "--cert", files.Cert, "--key", files.Key, "--ca", clientCAs, "--connect", address, "--every", "1ms")
	}
	client := start(clientFiles)

	// until waits until both sides have said something, and have seen each other's
	// certificates of now. Both are read all the while, as neither goes on unread.
	until := func(what string, serverSays, clientSays string) {
		t.Helper()
		t.Log(what)
		for serverSays != "" || clientSays != "" {
			select {
			case line := <-server.Lines():
				if line == serverSays {
					serverSays = ""
				}
			case line := <-client.Lines():
				if strings.HasPrefix(line, "failed") {
					t.Fatal(line)
				}
				if line == clientSays {
					clientSays = ""
				}
			}
		}
	}
	called := func() (string, string) {
		return "/grpc.health.v1.Health/Check by " + clientSerial, "SERVING by " + serverSerial
	}
	const serverReads, clientReads = "the CAs of clients are read", "the CAs of the server are read"
	all := func(what string) {
		t.Helper()
		serverSays, clientSays := called()
		until(what, serverSays, clientSays)
	}

	all("the first certificates")
	serverSerial = issue(old, serverFiles)
	all("a new certificate of the server")
	clientSerial = issue(old, clientFiles)
	all("a new certificate of the client")

	exampletest.WriteCAs(t, serverCAs, old, next)
	exampletest.WriteCAs(t, clientCAs, old, next)
	until("both CAs are trusted", serverReads, clientReads)
	serverSerial, clientSerial = issue(next, serverFiles), issue(next, clientFiles)
	all("certificates of the new CA")
	exampletest.WriteCAs(t, serverCAs, next)
	exampletest.WriteCAs(t, clientCAs, next)
	until("the new CA is trusted alone", serverReads, clientReads)
	for range 20 {
		all("calls go on")
	}

	// A client of the old CA is refused.
	stale := exampletest.NewPair(t)
	issue(old, stale)
	refused := start(stale)
	for !strings.HasPrefix(refused.Line(), "failed") {
	}
}
