// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"
)

// Bounds of what a CA can make this process do.
const (
	// MaxAnswer is the most bytes of an answer that are read. The longest by right is
	// a chain of ten certificates with long keys, some 30 KiB.
	MaxAnswer = 1 << 20

	maxHeader      = 64 << 10         // bytes of an answer's header
	maxAlternates  = 8                // other chains that are looked at; Let's Encrypt has one or two
	requestTimeout = 30 * time.Second // one request, its answer included; Let's Encrypt's own limit for one is below

	// A connection by HTTP/2 on which nothing has come for silent is asked whether it
	// still stands, and given up if no answer comes within answers: a firewall that has
	// forgotten it says nothing, and every request by it would take requestTimeout.
	silent  = 5 * time.Second
	answers = 5 * time.Second
)

// A transport is the only way to the CA. It lets nothing but https pass, bounds
// what comes back, and makes a problem document of every error, so that callers
// need to know one form only.
type transport struct {
	base    *http.Transport
	timeout time.Duration
	agent   string
}

func newTransport(c Config) *transport {
	agent := "keyturn"
	if c.Version != "" {
		agent += "/" + c.Version
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &transport{
		base: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    maxAtOnce,
			IdleConnTimeout:        90 * time.Second,
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: silent, PingTimeout: answers},
		},
		timeout: c.Timeout,
		agent:   agent,
	}
}

// A call is what the transport has seen of one call of the protocol's client, which
// repeats requests and keeps what came with an answer to itself.
type call struct {
	status     int           // of the last answer; 0 if there was none
	retryAfter time.Duration // of the last answer; 0 if it had none
	over       func() (*http.Response, error)
}

type callKey struct{}

// withCall returns a context whose requests are seen in the call.
func withCall(ctx context.Context) (context.Context, *call) {
	c := new(call)
	return context.WithValue(ctx, callKey{}, c), c
}

// RoundTrip sends a request once. After a server's error that says when to ask
// again, and after a request that can only fail again, a call sends no other: it
// gets the same answer.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	seen, _ := r.Context().Value(callKey{}).(*call)
	if seen == nil {
		seen = new(call)
	}
	if seen.over != nil {
		return seen.over()
	}
	resp, body, err := t.send(r)
	var final *finalError
	if errors.As(err, &final) {
		seen.over = func() (*http.Response, error) { return nil, err }
	}
	if err != nil {
		return nil, err
	}
	seen.status, seen.retryAfter = resp.StatusCode, retryAfter(resp.Header)
	answer := func() (*http.Response, error) {
		again := *resp
		again.Body = io.NopCloser(bytes.NewReader(body))
		return &again, nil
	}
	if resp.StatusCode >= 500 && seen.retryAfter > 0 {
		seen.over = answer
	}
	return answer()
}

// A finalError is one that the same request meets again.
type finalError struct{ text string }

func (e *finalError) Error() string { return e.text }

// send sends a request and reads the answer.
func (t *transport) send(r *http.Request) (resp *http.Response, body []byte, err error) {
	if r.URL.Scheme != "https" {
		return nil, nil, &finalError{shown(r.URL.String()) + " is not https, and what goes to a CA and comes back has to be protected"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), t.timeout)
	defer cancel() // the body has been read by then
	again := r.Clone(ctx)
	again.Header.Set("User-Agent", t.agent)
	if resp, err = t.base.RoundTrip(again); err == nil {
		body, err = readBounded(resp)
	}
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		err = &finalError{fmt.Sprintf("no answer from %s within %s", r.URL.Host, t.timeout)}
	}
	return resp, body, err
}

// readBounded reads an answer to its end and bounds what it can lead to.
func readBounded(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(body) > MaxAnswer {
		return nil, &finalError{fmt.Sprintf("the answer has more than %d bytes", MaxAnswer)}
	}
	if resp.StatusCode >= 400 {
		body = problemDocument(resp, body)
	}
	resp.ContentLength = int64(len(body))
	boundLinks(resp.Header)
	return body, nil
}

// problemDocument returns an error's body as a problem document: that which came,
// or one made of what came instead.
func problemDocument(resp *http.Response, body []byte) []byte {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var known acmez.Problem
	if kind == "application/problem+json" && json.Unmarshal(body, &known) == nil {
		return body
	}
	detail := http.StatusText(resp.StatusCode)
	if kind == "text/plain" && len(bytes.TrimSpace(body)) > 0 {
		detail = shown(string(bytes.TrimSpace(body)))
	}
	resp.Header.Set("Content-Type", "application/problem+json")
	made, err := json.Marshal(acmez.Problem{Status: resp.StatusCode, Detail: detail})
	if err != nil {
		return []byte("{}") // text and a number: it cannot fail
	}
	return made
}

// alternate finds the links to other chains (RFC 8555 section 7.4.2).
var alternate = regexp.MustCompile(`<[^<>]+>\s*;\s*rel="?alternate"?`)

// boundLinks keeps a chain from leading to ever more requests: only so many
// alternates are left of all links.
func boundLinks(h http.Header) {
	var kept []string
	for _, line := range h.Values("Link") {
		for _, link := range alternate.FindAllString(line, maxAlternates) {
			kept = append(kept, link[:strings.IndexByte(link, '>')+1]+`;rel="alternate"`)
		}
	}
	h.Del("Link")
	for _, link := range kept[:min(len(kept), maxAlternates)] {
		h.Add("Link", link)
	}
}

// retryAfter reads the header of RFC 9110 section 10.2.3; 0 if there is none or it
// is over.
func retryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), MaxRetryAfter)
	}
	return 0
}

// checkRedirect follows what a GET is redirected to, five times at most; the
// transport refuses what is not https.
func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 || via[0].Method == http.MethodPost {
		return fmt.Errorf("the CA redirects to %s, which is not followed", shown(r.URL.String()))
	}
	return nil
}
