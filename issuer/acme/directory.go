// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/issuer"
)

// directoryAge is how old a directory gets. Addresses hardly ever change, profiles
// come and go a few times a year.
const directoryAge = time.Hour

// A directory is a CA's (RFC 8555 section 7.1.1) and the protocol's client for it.
type directory struct {
	acmez.Directory
	client *acmez.Client
	asked  time.Time
}

// anonymous returns a session without an account.
func (ca *CA) anonymous(ctx context.Context) (*session, error) {
	s := &session{ca: ca}
	err := ca.inTurn(ctx, func() (err error) {
		s.directory, err = ca.directory(ctx)
		return err
	})
	return s, err
}

// directory returns the CA's, with the lock held. One that is known is used on where a newer one is
// not to be had.
func (ca *CA) directory(ctx context.Context) (*directory, error) {
	if ca.known != nil && time.Since(ca.known.asked) < directoryAge {
		return ca.known, nil
	}
	d, err := ca.askDirectory(ctx)
	if err != nil && ca.known == nil {
		return nil, err
	}
	if err != nil {
		ca.config.Logger.WarnContext(ctx, "using the directory that is known: a newer one is not to be had", "issuer", ca.config.Name, "error", err)
		d = &directory{Directory: ca.known.Directory, client: ca.known.client, asked: time.Now()}
	}
	ca.known = d
	return d, nil
}

func (ca *CA) askDirectory(ctx context.Context) (*directory, error) {
	d := &directory{asked: time.Now()}
	if _, err := ca.ask(ctx, "asking for the directory", func(ctx context.Context) error {
		return ca.get(ctx, ca.config.Directory, &d.Directory)
	}); err != nil {
		return nil, err
	}
	if d.NewNonce == "" || d.NewAccount == "" || d.NewOrder == "" {
		return nil, fmt.Errorf("asking for the directory at %s: %s is no ACME directory, it names no address to order at: give the directory's URL",
			ca.config.Name, ca.config.Directory)
	}
	if d.Meta == nil {
		d.Meta = new(acmez.DirectoryMeta)
	}
	return d, ca.newClient(d)
}

// newClient makes the protocol's client. It gets the directory from memory: by
// itself it would ask while all other CAs wait, keep it for half a day by its URL
// alone, and ask for renewal information whenever it fetches a certificate.
func (ca *CA) newClient(d *directory) error {
	shown := d.Directory
	shown.RenewalInfo = ""
	text, err := json.Marshal(shown)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	d.client = &acmez.Client{
		Directory:   ca.config.Directory + "#" + hex.EncodeToString(sum[:]),
		HTTPClient:  &http.Client{Transport: &remembering{ca.transport, text}, CheckRedirect: checkRedirect},
		PollTimeout: -1, // polling is done here
	}
	return nil
}

// remembering answers a request for the directory, which has a fragment, itself.
type remembering struct {
	*transport
	directory []byte
}

func (t *remembering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Fragment == "" {
		return t.transport.RoundTrip(r)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(t.directory)),
		ContentLength: int64(len(t.directory)),
		Request:       r,
	}, nil
}

// get asks for something that needs no signature.
func (ca *CA) get(ctx context.Context, url string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := ca.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		var p acmez.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return err
		}
		if p.Status == 0 {
			p.Status = resp.StatusCode
		}
		return p
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer's status is %s", resp.Status)
	}
	body, err := io.ReadAll(resp.Body) // bounded by the transport
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// profile returns the profile to order: the one asked for, if the CA offers it.
func (s *session) profile(asked string) (string, error) {
	if asked == "" {
		asked = s.ca.config.Profile
	}
	if _, ok := s.Meta.Profiles[asked]; ok || asked == "" {
		return asked, nil
	}
	if len(s.Meta.Profiles) == 0 {
		return "", fmt.Errorf("%w: the profile %q was asked for, but %s has none: leave it out", issuer.ErrRefused, asked, s.ca.config.Name)
	}
	return "", fmt.Errorf("%w: %s has no profile %q; it has %s", issuer.ErrRefused, s.ca.config.Name, asked,
		shown(strings.Join(slices.Sorted(maps.Keys(s.Meta.Profiles)), ", ")))
}

// errNoAddress is a directory without what a call needs.
var errNoAddress = errors.New("the CA's directory names no address for it")
