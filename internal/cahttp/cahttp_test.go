// SPDX-License-Identifier: Apache-2.0

package cahttp_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cahttp"
)

func TestProtected(t *testing.T) {
	for address, want := range map[string]bool{
		"https://ca.example.com":      true,
		"http://ca.example.com":       false,
		"http://localhost:8888":       true,
		"http://127.0.0.2:8888":       true,
		"http://[::1]:8888":           true,
		"http://10.0.0.1":             false,
		"http://localhost.example":    false,
		"http://127.0.0.1.example":    false,
		"http://127.0.0.1@ca.example": false,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := cahttp.Protected(u); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func TestProxy(t *testing.T) {
	there := &url.URL{Scheme: "http", Host: "proxy.example.com:3128"}
	for address, want := range map[string]*url.URL{
		"https://ca.example.com":  there,
		"https://127.0.0.1:8200":  there,
		"http://127.0.0.1:8200":   nil,
		"http://[::1%25lo]:8200/": nil, // not one of ProxyFromEnvironment's exceptions
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cahttp.Proxy(http.ProxyURL(there))(r); err != nil || got != want {
			t.Errorf("%s goes by %v (%v), want %v", address, got, err, want)
		}
		if got, err := cahttp.Proxy(nil)(r); err != nil || got != nil {
			t.Errorf("%s goes by %v (%v) without a proxy", address, got, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":                              0,
		"soon":                          0,
		"-5":                            0,
		" 120":                          2 * time.Minute,
		"9999999999999":                 cahttp.MaxRetryAfter,
		"4000000000":                    cahttp.MaxRetryAfter,
		"Fri, 31 Dec 1999 23:59:59 GMT": 0,
		"Fri, 31 Dec 2100 23:59:59 GMT": cahttp.MaxRetryAfter,
	} {
		if got := cahttp.RetryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	if got := cahttp.RetryAfter(nil); got != 0 {
		t.Errorf("no header: %s", got)
	}
}
