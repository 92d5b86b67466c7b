// SPDX-License-Identifier: Apache-2.0

// Package endpoint posts JSON to a URL of the operator's.
package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	attempts     = 3
	firstPause   = 500 * time.Millisecond // twice as long each time
	attemptTime  = 20 * time.Second
	maxRedirects = 3
	maxShown     = 300 // bytes of an answer in an error
)

// Parse reads a URL that secrets can be sent to: https, or http on a loopback
// address.
func Parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("url is not a URL with a host and without a password")
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return u, nil
	}
	return nil, errors.New("url must begin with https://; http:// is only taken for a loopback address")
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// NewClient returns a client that follows a redirect only to the same server, with
// the same method and body; nil is the default transport.
func NewClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, Timeout: attemptTime, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		first := via[0]
		if r.URL.Scheme != first.URL.Scheme || r.URL.Host != first.URL.Host || r.Method != first.Method || len(via) > maxRedirects {
			return fmt.Errorf("it redirects to %s://%s: give that URL itself if it is right", r.URL.Scheme, r.URL.Host)
		}
		return nil
	}}
}

// Post posts the body, with what the function sets in each attempt's header. It
// tries again when the server cannot be reached, or says that it is its own or a
// passing failure. An answer of 2xx is success.
func Post(ctx context.Context, c *http.Client, u *url.URL, body []byte, header func(http.Header)) error {
	var err error
	for i, pause := 0, firstPause; i < attempts; i, pause = i+1, pause*2 {
		if i > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return errors.Join(err, ctx.Err())
			}
		}
		var again bool
		if again, err = post(ctx, c, u, body, header); !again {
			return err
		}
	}
	return fmt.Errorf("%w (tried %d times)", err, attempts)
}

func post(ctx context.Context, c *http.Client, u *url.URL, body []byte, header func(http.Header)) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	header(r.Header)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		redirected := resp != nil
		if resp != nil {
			_ = resp.Body.Close() // closed already, by Do
		}
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // the URL may hold what is nobody's business
		}
		return !redirected && ctx.Err() == nil, fmt.Errorf("posting to %s://%s: %w", u.Scheme, u.Host, err)
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, maxShown)) // what there is of it
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	again = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout
	return again, fmt.Errorf("posting to %s://%s: it answers %s%s", u.Scheme, u.Host, resp.Status, quoted(said))
}

func quoted(said []byte) string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(said), ""))
	if s == "" {
		return ""
	}
	return fmt.Sprintf(": %q", s)
}
