// SPDX-License-Identifier: Apache-2.0

// Package checkin tells a dead man's switch that a pass over the certificates took
// place: a service elsewhere that raises the alarm when it has heard nothing for
// too long. That is how one learns of a timer that no longer runs, which can log
// and count nothing.
//
//	c, err := checkin.New("https://hc-ping.com/UUID{|/fail}", time.Hour, nil)
//	...
//	err = c.Report(ctx, checkin.Result{Passed: time.Now(), OK: true, Due: 2, Renewed: 2})
//
// A check-in is a POST of JSON:
//
//	{"time":"2027-01-31T12:00:00Z","ok":true,"ttl_seconds":3600,"due":2,"renewed":2,"failed":0,"next":"2027-02-01T03:04:05Z"}
//
// with the header Keyturn-TTL: 3600, the seconds within which the next check-in
// has to come. "next" is left out if it is not known.
//
// # URLs
//
// A failed pass is a check-in as well, with "ok":false. For services that read no
// JSON the URL may say which it is: {A|B} anywhere in it becomes A after a good pass
// and B after a failed one. Either may be empty. So, for services that there are:
//
//	https://hc-ping.com/UUID{|/fail}                               Healthchecks.io
//	https://cronitor.link/p/KEY/NAME?state={complete|fail}         Cronitor
//	https://status.example.com/api/push/TOKEN?status={up|down}     Uptime Kuma
//
// Who knows such a URL can check in, so only its host is ever in an error.
package checkin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// A check-in takes at most tries*tryTimeout + (tries-1)*maxWait, which is ten
// seconds: long enough for a service that restarts, and short beside a pass.
const (
	tries      = 3
	tryTimeout = 3 * time.Second
	minWait    = 200 * time.Millisecond // between tries; a random time from here
	maxWait    = 500 * time.Millisecond // to here, so that a fleet does not come back at once
)

// maxAnswer bounds what is read of an answer, in bytes, so that its connection can
// be used again. Services answer with a word.
const maxAnswer = 4096

// A Result is what a pass did.
type Result struct {
	Passed time.Time // when it ended
	OK     bool      // it went over all that was due, and nothing failed

	Due     int // certificates that were due
	Renewed int // of these
	Failed  int // of these

	Next time.Time // when the next certificate is due; zero is not known
}

// A CheckIn reports to one URL. Its methods may be called at once.
type CheckIn struct {
	good, failed string // URLs
	host         string
	ttl          int64 // in seconds
	client       http.Client
}

// New returns a CheckIn at the address, a URL with or without {A|B}. It must be https,
// unless its host is a loopback address. ttl, of a second or more, is how long after a
// check-in the next one has to come: some two or three times what lies between
// passes. A nil client is one like [http.DefaultClient]; of any other its redirect
// policy is not used.
func New(address string, ttl time.Duration, client *http.Client) (*CheckIn, error) {
	if ttl < time.Second {
		return nil, fmt.Errorf("checkin: the time to live is %v: it must be a second or more", ttl)
	}
	c := &CheckIn{ttl: int64(ttl / time.Second)}
	var err error
	if c.good, c.failed, c.host, err = split(address); err != nil {
		return nil, fmt.Errorf("checkin: %w", err)
	}
	if client != nil {
		c.client = *client
	}
	c.client.CheckRedirect = onlyHere
	return c, nil
}

// Report checks in. It tries three times, for ten seconds at most, if the service
// cannot be reached or is at fault (RFC 9110, section 15.6) or busy. An answer of 2xx is
// success. An error is there to be logged: that nobody heard of a pass must not fail
// it, and the switch goes off by itself.
func (c *CheckIn) Report(ctx context.Context, r Result) error {
	target := c.good
	if !r.OK {
		target = c.failed
	}
	body, err := json.Marshal(message{r.Passed.UTC(), r.OK, c.ttl, r.Due, r.Renewed, r.Failed, r.Next.UTC()})
	if err != nil {
		return fmt.Errorf("checkin: encoding the result: %w", err)
	}
	for again, try := true, 1; again && try <= tries; try++ {
		if try > 1 {
			wait(ctx)
		}
		if again, err = c.post(ctx, target, body); err == nil {
			return nil
		}
	}
	return fmt.Errorf("checkin: %s: %w", c.host, err)
}

// A message is a check-in as it is sent.
type message struct {
	Time    time.Time `json:"time"`
	OK      bool      `json:"ok"`
	TTL     int64     `json:"ttl_seconds"`
	Due     int       `json:"due"`
	Renewed int       `json:"renewed"`
	Failed  int       `json:"failed"`
	Next    time.Time `json:"next,omitzero"`
}

func wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(minWait + rand.N(maxWait-minWait)):
	}
}

// post tries once; again says whether another try may do better.
func (c *CheckIn) post(ctx context.Context, target string, body []byte) (again bool, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, tryTimeout, fmt.Errorf("no answer came within %v", tryTimeout))
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return false, bare(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "keyturn")
	request.Header.Set("Keyturn-TTL", strconv.FormatInt(c.ttl, 10))
	response, err := c.client.Do(request)
	switch {
	case err != nil && ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil && limited.Err() != nil:
		return true, context.Cause(limited)
	case err != nil:
		return true, bare(err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswer) // what the answer says beside its code is of no matter
	return judge(response)
}

func judge(response *http.Response) (again bool, err error) {
	code := response.StatusCode
	switch {
	case code/100 == 2:
		return false, nil
	case code/100 == 3:
		return false, fmt.Errorf("it answers %q and leads elsewhere, which is not followed: set the URL that it leads to", response.Status)
	case code/100 == 5 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return true, fmt.Errorf("it answers %q", response.Status)
	}
	return false, fmt.Errorf("it answers %q: look at the URL", response.Status)
}

// onlyHere follows what stays at the same place and a POST, as after 307 and 308: another
// host was not meant to learn of it, and a GET would bring no body.
func onlyHere(request *http.Request, via []*http.Request) error {
	first := via[0].URL
	if request.URL.Scheme != first.Scheme || request.URL.Host != first.Host || request.Method != http.MethodPost || len(via) > 3 {
		return http.ErrUseLastResponse
	}
	return nil
}

// bare takes off what net/http puts around an error: the URL.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
