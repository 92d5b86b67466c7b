// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keyturn/keyturn/proxy"
)

const forged = "spiffe://example.org/admin"

// names by which a service may read what the proxy says; some by the rules of CGI.
var forgedNames = []string{
	"X-Client-Identity", "x-client-identity", "X_Client_Identity", "X-Client_Identity", "x.client.identity", "X-CLIENT-identity", "X~Client!Identity",
	"Client-Cert", "client_cert", "Client-Cert-Chain", "CLIENT_CERT_CHAIN",
	"X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded_proto", "X-Forwarded-Port", "X-Forwarded-Client-Cert", "X.Forwarded.Anything",
	"Forwarded", "X-Real-IP", "x_real_ip",
}

// TestForgedHeaders sends what only the proxy may say, with and without a certificate: as a
// header, twice, as a trailer, announced or not, and named in Connection.
func TestForgedHeaders(t *testing.T) {
	for _, names := range [][]string{nil, {"spiffe://example.org/web"}} {
		service := newWire(t)
		r := start(t, proxy.Config{To: target(t, service.Addr().String())}, nil)
		for _, name := range forgedNames {
			for _, text := range []string{
				name + ": " + forged + "\r\n",
				name + ": a\r\n" + name + ": " + forged + "\r\n",
				name + ": " + forged + "\r\nConnection: close, " + name + "\r\n",
				"Connection: X-Client-Identity, Client-Cert, X-Forwarded-For, X-Forwarded-Proto, Host\r\n",
				name + ":\t" + forged + "\r\n",
			} {
				r.send(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+text+"\r\n", names...)
			}
			for _, trailer := range []string{"Trailer: " + name + "\r\n", ""} {
				r.send(t, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+trailer+"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"+name+": "+forged+"\r\n\r\n", names...)
			}
		}
		frames(t, r, names)
		got := service.text()
		if strings.Contains(got, forged) || strings.Contains(strings.ToLower(got), "client_") {
			t.Errorf("what was forged got through:\n%s", got)
		}
		requests := strings.Count(got, " / HTTP/1.1\r\n")
		if want := len(forgedNames)*8 - 1; requests < want-len(forgedNames) {
			t.Fatalf("%d requests got through: %s", requests, got)
		}
		for text, want := range map[string]int{
			"\r\nX-Forwarded-For: 127.0.0.1\r\n": requests, "\r\nX-Forwarded-Proto: https\r\n": requests, "\r\nX-Forwarded-Host: a\r\n": requests, "\r\nHost: a\r\n": requests,
			"\r\nX-Client-Identity: spiffe://example.org/web\r\n": requests * len(names), "\r\nClient-Cert: :": requests * len(names), "\r\nClient-Cert-Chain: :": requests * len(names),
		} {
			if n := strings.Count(got, text); n != want {
				t.Errorf("%d of %d requests have %q", n, want, text)
			}
		}
	}
}

// frames sends the same over HTTP/2, as no client would write it.
func frames(t *testing.T, r *running, names []string) {
	t.Helper()
	config := r.client(t, []string{"h2"}, names...)
	for _, name := range forgedNames {
		lower := strings.ToLower(name)
		if !strings.ContainsAny(lower, "!~") {
			frame(t, r, config, [][2]string{{lower, forged}}, nil)
			frame(t, r, config, nil, [][2]string{{lower, forged}})
		}
	}
}

// TestSmuggling sends requests that may be read in two ways: what follows them must not get
// to the service as a request that nobody has looked at.
func TestSmuggling(t *testing.T) {
	const inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Client-Identity: " + forged + "\r\n\r\n"
	for title, text := range map[string]string{
		"both lengths":                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"two lengths":                 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + inner,
		"a list of lengths":           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 5\r\n\r\n" + inner,
		"a signed length":             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n" + inner,
		"a space before the colon":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 9\r\n\r\n" + inner,
		"an odd encoding":             "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
		"two encodings":               "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
		"chunked, not last":           "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + inner,
		"a folded header":             "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n" + inner,
		"a vertical tab":              "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" + inner,
		"a bare line feed":            "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"a bare carriage return":      "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n" + inner,
		"a chunk's extension":         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\ny\r\nz\r\n0\r\n\r\n" + inner,
		"a negative chunk":            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + inner,
		"two hosts":                   "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + inner,
		"no host":                     "GET / HTTP/1.1\r\n\r\n" + inner,
		"a space in the target":       "GET / /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" + inner,
		"an underscored length":       "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\n\r\n" + inner,
		"HTTP/1.0 and chunks":         "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"h2c by upgrade":              "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + inner,
		"h2c beside WebSocket":        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n" + inner,
		"h2c after WebSocket":         "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n" + inner,
		"WebSocket by POST":           "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n" + inner,
		"WebSocket, and not upgraded": "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + inner,
		"CONNECT":                     "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + inner,
	} {
		service := newWire(t)
		r := start(t, proxy.Config{To: target(t, service.Addr().String())}, nil)
		r.send(t, text+"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		got := service.text()
		// What the proxy has read as a request of its own it has looked at.
		if strings.Contains(got, forged) {
			t.Errorf("%s: the service got\n%s", title, got)
		}
		in := bufio.NewReader(strings.NewReader(got))
		for {
			req, err := http.ReadRequest(in)
			if err == io.EOF {
				break
			}
			if err != nil || req.Header.Get("X-Forwarded-For") != "127.0.0.1" || req.Header.Get("X-Forwarded-Proto") != "https" {
				t.Errorf("%s: %v, %v; the service got\n%s", title, req, err, got)
				break
			}
			if up := req.Header.Get("Upgrade"); up != "" && up != "websocket" || req.Header.Get("Http2-Settings") != "" {
				t.Errorf("%s: it is asked to upgrade: %q", title, got)
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				break // the proxy has broken it off
			}
		}
		for _, bad := range []string{"Transfer-Encoding: chunked\r\nContent-Length", "Content-Length: 5\r\nTransfer", "CONNECT"} {
			if strings.Contains(got, bad) {
				t.Errorf("%s: %q", title, got)
			}
		}
	}
}

// TestTargetForms has targets in other forms than a path.
func TestTargetForms(t *testing.T) {
	for line, want := range map[string]string{
		"GET http://b.example/x?y HTTP/1.1":  "GET /x?y HTTP/1.1\r\nHost: b.example\r\n", // RFC 9112 section 3.2.2: it goes before Host
		"GET https://b.example:1/x HTTP/1.1": "GET /x HTTP/1.1\r\nHost: b.example:1\r\n",
		"GET http://u:p@b.example/ HTTP/1.1": "GET / HTTP/1.1\r\nHost: b.example\r\n",
		"OPTIONS * HTTP/1.1":                 "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
		"GET //c.example/x HTTP/1.1":         "GET //c.example/x HTTP/1.1\r\nHost: a\r\n",
		"GET x HTTP/1.1":                     "",
		"GET unix:/run/x HTTP/1.1":           "GET /run/x HTTP/1.1\r\nHost: a\r\n",
		"CONNECT b.example:443 HTTP/1.1":     "",
		"TRACE / HTTP/1.1":                   "",
		"GET /\"<>^`{|} HTTP/1.1":            "GET /%22%3C%3E%5E%60%7B%7C%7D HTTP/1.1\r\nHost: a\r\n",
		"GET /a\x01b HTTP/1.1":               "",
		"PRI * HTTP/2.0":                     "",
	} {
		service := newWire(t)
		r := start(t, proxy.Config{To: target(t, service.Addr().String())}, nil)
		answer := r.send(t, line+"\r\nHost: a\r\nConnection: close\r\n\r\n")
		got := service.text()
		if want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: the service got %q, want %q; the client %q", line, got, want, answer)
		}
		if want == "" && !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 5") {
			t.Errorf("%s: the client got %q", line, answer)
		}
	}
}

// TestIdentity looks at what the service is told of clients.
func TestIdentity(t *testing.T) {
	r := start(t, proxy.Config{IdentityHeader: "x-who"}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Name", r.Header.Get("X-Who"))
		w.Header().Set("Cert", r.Header.Get("Client-Cert"))
		w.Header().Set("Chain", r.Header.Get("Client-Cert-Chain"))
	})
	for _, test := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"web.example", "spiffe://example.org/web"}, "spiffe://example.org/web"},
		{[]string{"web.example", "other.example"}, "web.example"},
		{[]string{"*.web.example"}, "*.web.example"},
		{[]string{"192.0.2.1"}, ""},
	} {
		for version := 1; version <= 2; version++ {
			c := r.http(t, version, test.names...)
			for range 2 { // the second on the same connection
				res, err := c.Get("https://" + r.addr)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if got := res.Header.Get("Name"); got != test.want {
					t.Errorf("%q: %q, want %q", test.names, got, test.want)
				}
				cert, chain := res.Header.Get("Cert"), res.Header.Get("Chain")
				if test.names == nil {
					if cert != "" || chain != "" {
						t.Errorf("%q, %q", cert, chain)
					}
					continue
				}
				leaf, intermediate := decode(t, cert), decode(t, chain)
				if !intermediate.Equal(r.ca.Intermediate()) || leaf.CheckSignatureFrom(intermediate) != nil {
					t.Errorf("%q: %v, %v", test.names, leaf, intermediate)
				}
			}
		}
	}
	for _, bad := range []string{"Host", "Client-Cert", "X-Forwarded-For", "X Who", "X-Who:", "X-Real-IP", "x_who"} {
		if _, err := proxy.New(proxy.Config{To: target(t, "a:1"), TLS: r.mutual(), IdentityHeader: bad}); err == nil || !strings.Contains(err.Error(), "not a name") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// decode reads a byte sequence of RFC 8941.
func decode(t *testing.T, item string) *x509.Certificate {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(item, ":"), ":"))
	if err != nil || !strings.HasPrefix(item, ":") || !strings.HasSuffix(item, ":") {
		t.Fatalf("%q: %v", item, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestTrustForwarded has a proxy before this one.
func TestTrustForwarded(t *testing.T) {
	for trusted, want := range map[string]string{
		"127.0.0.0/8":  "192.0.2.1, 192.0.2.2, 127.0.0.1|front.example|http",
		"192.0.2.0/24": "127.0.0.1|a|https",
	} {
		r := start(t, proxy.Config{TrustForwarded: []netip.Prefix{netip.MustParsePrefix(trusted)}}, func(w http.ResponseWriter, r *http.Request) {
			h := r.Header
			_, _ = io.WriteString(w, strings.Join(h["X-Forwarded-For"], "\n")+"|"+h.Get("X-Forwarded-Host")+"|"+h.Get("X-Forwarded-Proto")+"|"+h.Get("X-Forwarded-Port")+h.Get("Forwarded")+h.Get("Client-Cert"))
		})
		got := r.send(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n"+
			"X-Forwarded-Host: front.example\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\nForwarded: for=x\r\nClient-Cert: :AA==:\r\n\r\n")
		if !strings.HasSuffix(got, "\r\n\r\n"+want+"|") {
			t.Errorf("%s: %q, want %q", trusted, got, want)
		}
	}
}

// frame sends one request over a connection of HTTP/2 of its own, with headers and
// trailers as they are given, and waits for the answer's end.
func frame(t *testing.T, r *running, config *tls.Config, headers, trailers [][2]string) {
	t.Helper()
	c, err := tls.Dial("tcp", r.addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	fields := [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	write := func(fields [][2]string, end bool) {
		block.Reset()
		for _, field := range fields {
			if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	write(append(fields, headers...), false)
	if err := f.WriteData(1, trailers == nil, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if trailers != nil {
		write(trailers, true)
	}
	for {
		got, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch got := got.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return
		case *http2.HeadersFrame:
			if got.StreamEnded() {
				return
			}
		case *http2.DataFrame:
			if got.StreamEnded() {
				return
			}
		}
	}
}
