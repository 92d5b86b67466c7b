// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
)

// transport speaks one version of TLS, and HTTP/2 or only HTTP/1.1.
func transport(version uint16, http2 bool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Transport{
		Protocols: &protocols,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true,
			MinVersion:         version,
			MaxVersion:         version,
		},
	}
}

// get gets a page, and returns the answer, its body, the serial number that the
// connection was made with and whether it had been used before.
func get(t testing.TB, transport *http.Transport, url string) (answer *http.Response, body string, serial *big.Int, reused bool) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err = transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		t.Errorf("%s: %s: %s", url, answer.Status, content)
	}
	return answer, string(content), answer.TLS.PeerCertificates[0].SerialNumber, reused
}

func TestProtocolsAndSwap(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
			t.Run(tls.VersionName(version)+" "+proto, func(t *testing.T) {
				var store keyturn.Store
				first := put(t, &store)
				l := listen(t)
				e := start(t, Config{Store: &store}, l)
				url := "https://" + l.Addr().String() + "/state"

				open := transport(version, http2)
				defer open.CloseIdleConnections()
				answer, _, serial, _ := get(t, open, url)
				if answer.Proto != proto || answer.TLS.Version != version {
					t.Errorf("the answer came over %s and %s", answer.Proto, tls.VersionName(answer.TLS.Version))
				}
				if serial.Cmp(first) != 0 {
					t.Error("it is not the certificate of the store")
				}

				second := put(t, &store)
				if _, _, serial, reused := get(t, open, url); !reused || serial.Cmp(first) != 0 {
					t.Error("the open connection did not survive the swap")
				}
				fresh := transport(version, http2)
				defer fresh.CloseIdleConnections()
				if _, _, serial, _ := get(t, fresh, url); serial.Cmp(second) != 0 {
					t.Error("a new connection does not get the new certificate")
				}
				if served, failed := e.Handshakes(); served != 2 || failed != 0 {
					t.Errorf("Handshakes() = %d, %d, want 2, 0", served, failed)
				}
			})
		}
	}
}

// A client that rejects the certificate, as curl does without the CA, has failed, and
// so has one that does not speak TLS, which is told. The log says why, on one line.
func TestFailures(t *testing.T) {
	var store keyturn.Store
	put(t, &store)
	var log bytes.Buffer
	l := listen(t)
	e := start(t, Config{Store: &store, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, l)

	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client := tls.Client(conn, &tls.Config{ServerName: "localhost", MaxVersion: version})
		if err := client.HandshakeContext(t.Context()); err == nil {
			t.Error("the certificate is trusted")
		}
		drain(t, conn)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 4000)+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "https://") {
		t.Errorf("plain HTTP is answered %s %q, %v", answer.Status, body, err)
	}
	drain(t, conn)

	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if served, failed := e.Handshakes(); served != 0 || failed != 3 {
		t.Errorf("Handshakes() = %d, %d, want 0, 3", served, failed)
	}
	if n := strings.Count(log.String(), "handshake failed"); n != 3 || strings.Count(log.String(), "\n") != 3 {
		t.Errorf("the log is\n%s", log.String())
	}
}

func TestBounded(t *testing.T) {
	if got := bounded(errors.New("a\nb\x1b[0m" + strings.Repeat("é", 1000))); len(got) > 2*maxErrorLength+20 ||
		!strings.HasPrefix(got, `"a\nb\x1b[0m`) {
		t.Errorf("it is %s", got)
	}
}
