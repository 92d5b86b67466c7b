// SPDX-License-Identifier: Apache-2.0

// Package webhook has an HTTP server of the operator's set records.
//
// It is posted a JSON object:
//
//	{"action": "present", "fqdn": "_acme-challenge.www.example.com.", "value": "…", "zone": "example.com."}
//
// The action is "present" or "cleanup", and the zone is left out if it is not
// known. The headers
//
//	Keyturn-Timestamp: 1790000000
//	Keyturn-Signature: v1=HEX
//
// have the time in seconds since 1970, and the HMAC-SHA256, under the secret that
// both know, of the timestamp, a full stop and the body. The server compares in
// constant time, and refuses what is older than some minutes. It answers 2xx when
// the change is made; 5xx, 408 and 429 are tried again twice, so that one request
// may come more than once.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/endpoint"
)

// minSecret is the least that a secret has, in bytes.
const minSecret = 16

// Config is where to post.
type Config struct {
	URL    string     // https, or http on a loopback address
	Secret dns.Secret // that requests are signed with, at least 16 bytes
	// Transport is nil for the default one.
	Transport http.RoundTripper
}

// A Provider posts to a URL.
type Provider struct {
	url    *url.URL
	secret []byte
	client *http.Client
}

var _ dns.Provider = (*Provider)(nil)

// Format prints the server that is posted to, whatever the verb.
func (p *Provider) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.url.Host) }

// New returns a provider. It asks nobody anything yet.
func New(c Config) (*Provider, error) {
	u, err := endpoint.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	if len(c.Secret) < minSecret {
		return nil, fmt.Errorf("secret must have at least %d bytes", minSecret)
	}
	return &Provider{u, []byte(c.Secret), endpoint.NewClient(c.Transport)}, nil
}

// Present posts the action "present".
func (p *Provider) Present(ctx context.Context, r dns.Record) error {
	return p.post(ctx, "present", r)
}

// CleanUp posts the action "cleanup".
func (p *Provider) CleanUp(ctx context.Context, r dns.Record) error {
	return p.post(ctx, "cleanup", r)
}

// request is what is posted.
type request struct {
	Action string `json:"action"`
	FQDN   string `json:"fqdn"`
	Value  string `json:"value"`
	Zone   string `json:"zone,omitempty"`
}

func (p *Provider) post(ctx context.Context, action string, r dns.Record) error {
	q := request{Action: action, FQDN: r.Name + ".", Value: r.Value}
	if r.Zone != "" {
		q.Zone = r.Zone + "."
	}
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return endpoint.Post(ctx, p.client, p.url, body, func(h http.Header) {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		h.Set("Keyturn-Timestamp", now)
		h.Set("Keyturn-Signature", "v1="+hex.EncodeToString(sign(p.secret, now, body)))
	})
}

func sign(secret []byte, timestamp string, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(timestamp + "."))
	m.Write(body)
	return m.Sum(nil)
}
