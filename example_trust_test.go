// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn"
)

// forDevelopment returns a certificate for development, and a pool that believes it.
func forDevelopment(hosts ...string) (tls.Certificate, *x509.CertPool) {
	cert, err := keyturn.SelfSigned("Example", hosts...)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	return cert, pool
}

// listen returns a listener on a free port.
func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

// Mutual TLS on both sides, from the same two zero values. The server stops believing
// the client while both run.
func ExampleTrust() {
	serverCert, serverRoots := forDevelopment("db.internal")
	clientCert, clientCAs := forDevelopment("spiffe://example.org/web")

	var serverStore keyturn.Store
	var serverTrust keyturn.Trust
	serverStore.Put("db", serverCert)
	serverTrust.SetClientCAs(clientCAs)
	serverTrust.SetClientAuth(tls.RequireAndVerifyClientCert)
	serverTrust.SetPeerNames("spiffe://example.org/*")
	listener := listen()
	server := &http.Server{
		TLSConfig: serverTrust.ServerConfig(serverStore.ServerConfig()),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "hello, ", r.TLS.PeerCertificates[0].URIs[0])
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	var clientStore keyturn.Store
	var clientTrust keyturn.Trust
	clientStore.Put("web", clientCert)
	clientTrust.SetRootCAs(serverRoots)
	transport := &http.Transport{
		TLSClientConfig:   clientStore.ClientConfig(clientTrust.ClientConfig("db.internal")),
		ForceAttemptHTTP2: true,
	}
	client := &http.Client{Transport: transport}
	get := func() {
		defer transport.CloseIdleConnections()
		response, err := client.Get("https://" + listener.Addr().String())
		if err != nil {
			fmt.Println("refused")
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		fmt.Printf("%s %s\n", response.Proto, body)
	}

	get()
	_, others := forDevelopment()
	serverTrust.SetClientCAs(others)
	get()
	// Output:
	// HTTP/2.0 hello, spiffe://example.org/web
	// refused
}

// The single-certificate view, for both sides of mutual TLS.
func ExampleCertAuthManager() {
	cert, pool := forDevelopment()
	var manager keyturn.CertAuthManager
	manager.Update(cert)
	manager.SetClientCAs(pool)
	manager.SetRootCAs(pool)
	manager.SetClientAuth(tls.RequireAndVerifyClientCert)

	listener := tls.NewListener(listen(), manager.ServerConfig("echo"))
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go io.Copy(conn, conn)
		}
	}()

	config := manager.ClientConfig("localhost")
	config.NextProtos = []string{"echo"}
	conn, err := tls.Dial("tcp", listener.Addr().String(), config)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	var answer string
	fmt.Fscanln(conn, &answer)
	fmt.Println(answer, conn.ConnectionState().NegotiatedProtocol)
	// Output: hello echo
}

// A bad certificate leaves the one before in place. As Update returns no error, an
// observer hears of it.
func ExampleCertManager_Update() {
	var manager keyturn.CertManager
	events := make(chan keyturn.Event, 1)
	cert, _ := forDevelopment("www.example.com")
	manager.Update(cert)
	defer manager.Store().Observe(events)()

	other, _ := forDevelopment("www.example.com")
	cert.PrivateKey = other.PrivateKey
	manager.Update(cert)
	if e := <-events; errors.Is(e.Err, keyturn.ErrKeyMismatch) {
		fmt.Println(e.Kind)
	}
	fmt.Println("served:", manager.GetCertificate().Leaf.DNSNames)
	// Output:
	// refused
	// served: [www.example.com]
}

// An HTTP server whose connections leave an old certificate.
func ExampleStore_Drain() {
	first, pool := forDevelopment("www.example.com")
	second, _ := forDevelopment("www.example.com")
	pool.AddCert(second.Leaf)
	var store keyturn.Store
	store.Put("web", first)

	listener := listen()
	server := &http.Server{
		TLSConfig:   store.ServerConfig(),
		ConnContext: keyturn.ConnContext,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if keyturn.Draining(r.Context()) {
				w.Header().Set("Connection", "close") // in HTTP/2: GOAWAY
			}
		}),
	}
	go server.ServeTLS(store.Listener(listener), "", "")
	defer server.Close()

	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, ServerName: "www.example.com"},
		ForceAttemptHTTP2: true,
	}}
	served := func() string {
		response, err := client.Get("https://" + listener.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		defer response.Body.Close()
		if response.TLS.PeerCertificates[0].Equal(first.Leaf) {
			return "first"
		}
		return "second"
	}

	fmt.Println(served())
	store.Put("web", second)
	fmt.Println(served(), "on the open connection")
	drained := make(chan int)
	go func() { drained <- store.Drain("web", time.Minute) }()
	for served() == "first" {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("second, and cut off:", <-drained)
	// Output:
	// first
	// first on the open connection
	// second, and cut off: 0
}

// Any server by its IP address, with roots that may change.
func ExampleTrust_Dialer() {
	cert, pool := forDevelopment("127.0.0.1")
	var store keyturn.Store
	store.Put("server", cert)
	listener := listen()
	server := &http.Server{TLSConfig: store.ServerConfig()}
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	var trust keyturn.Trust
	trust.SetRootCAs(pool)
	conn, err := trust.Dialer(nil, nil)(context.Background(), "tcp", listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].IPAddresses)
	// Output: [127.0.0.1]
}
