// SPDX-License-Identifier: Apache-2.0

package lego

import (
	"io"
	"net/http"
	"time"
)

// Bounds of what a service may answer. The text of an error ends up in messages
// and on the bus.
const (
	answerTime = 30 * time.Second
	maxAnswer  = 4 << 20
	maxError   = 2 << 10
)

// Client returns an HTTP client for one service's API, with bounds, on the
// transport of c; nil is the default one.
func Client(c *http.Client) *http.Client {
	t := bounded{http.DefaultTransport}
	if c != nil && c.Transport != nil {
		t.next = c.Transport
	}
	return &http.Client{Transport: t, Timeout: answerTime}
}

// bounded reads no more of an answer than it may have.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	var most int64 = maxAnswer
	if resp.StatusCode >= http.StatusBadRequest {
		most = maxError
	}
	resp.Body = &body{io.LimitReader(resp.Body, most), resp.Body}
	return resp, nil
}

type body struct {
	io.Reader
	io.Closer
}
