// SPDX-License-Identifier: Apache-2.0

package cfssl

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cahttp"
	"github.com/keyturn/keyturn/issuer"
)

// Types of the [issuer.Problem] that is in an error of CFSSL's.
const (
	InvalidToken    = "invalidToken"    // the key is not the profile's
	KeyRequired     = "keyRequired"     // the profile has a key, and none was given
	KeyUnknown      = "keyUnknown"      // a key was given, and the profile has none
	UnknownLabel    = "unknownLabel"    // the server has no CA of that name
	UnknownProfile  = "unknownProfile"  // the CA has no profile of that name
	Forbidden       = "forbidden"       // the server does not take requests from here, or of this client
	Rejected        = "rejected"        // the profile does not allow the request
	NoDatabase      = "noDatabase"      // the server keeps no certificates, and so revokes none
	UnknownEndpoint = "unknownEndpoint" // it is no CFSSL, or one that has no CA
	ServerError     = "serverError"     // CFSSL itself has a problem
	Unreachable     = "unreachable"     // there was no answer, or not one of CFSSL's
)

// advice is what to do about a problem, by its type.
var advice = map[string]string{
	InvalidToken:    "give the key that the profile's auth_key names in the server's configuration",
	KeyRequired:     "give the key that the profile's auth_key names in the server's configuration, or the name of another profile",
	KeyUnknown:      "leave the key out, or give the profile an auth_key in the server's configuration",
	UnknownLabel:    "correct the label: one of the sections of multirootca's file, or its default (-l)",
	UnknownProfile:  "correct the profile: one of those in the configuration of the CA",
	Forbidden:       "allow this host (whitelist of multirootca), or the common name of its client certificate (-mutual-tls-cn)",
	Rejected:        "change what the profile allows, or what is asked for; the server's own log says more",
	NoDatabase:      "start the server with a database (-db-config), in which it finds what it has signed",
	UnknownEndpoint: "look at the address, and in the server's log: a CFSSL without CA files or with a bad configuration answers nothing else",
	ServerError:     "look at the server's own log; it is tried again later",
	Unreachable:     "it is tried again later; if it stays so, see whether CFSSL can be reached from here, and whether it is CFSSL that answers at the address",
}

// final are the problems that asking again does not solve. A key that is wrong is none
// of them: the file that it is read from may have another by then.
var final = map[string]bool{
	KeyRequired: true, KeyUnknown: true, UnknownLabel: true, UnknownProfile: true,
	Forbidden: true, Rejected: true, NoDatabase: true,
}

// particular is what to do about one of several problems of a type, by a part of what
// CFSSL says.
var particular = []struct{ said, advice string }{
	{"policy whitelist", "let the profile sign the name (name_whitelist), or ask for another"},
	{"no key usage", "give the profile usages, such as \"server auth\""},
	{"Policy violation", "the profile does not sign CA certificates"},
	{"certificate not found", "its database does not have the certificate: it was signed by another CA, or before there was a database"},
	{"linting", "the profile's lint_error_level is not met: the server's log says by what"},
}

// notCFSSL is said where something else answers.
const notCFSSL = "the answer is not one of CFSSL's"

// maxSaid is how much of an answer that is not CFSSL's is looked at, in bytes.
const maxSaid = 300

// explain returns what the server answered as an error: a problem with what to do
// about it. known says that the answer has CFSSL's form, else text is all of it.
func explain(endpoint string, resp *http.Response, answer reply, known bool, text []byte) error {
	var said []string
	troubled := false
	for _, e := range answer.Errors {
		said = append(said, e.Message)
		troubled = troubled || isTrouble(e.Code)
	}
	p := &issuer.Problem{Status: resp.StatusCode, Detail: cmp.Or(strings.Join(said, "; "), "CFSSL gives no reason")}
	switch {
	case known:
	case p.Status == http.StatusNotFound:
		p.Detail = "the server has no endpoint " + endpoint
	default:
		p.Detail = notCFSSL + ": " + cmp.Or(string(bytes.TrimSpace(text[:min(len(text), maxSaid)])), resp.Status)
	}
	p.Type = kind(endpoint, resp, p.Detail, known)
	if p.Type == Rejected && troubled { // CFSSL answers 400 all the same
		p.Type = ServerError
	}
	err := fmt.Errorf("%s: %w: %s", endpoint, p, adviceFor(p))
	if final[p.Type] {
		err = fmt.Errorf("%w: %w", issuer.ErrRefused, err)
	}
	if wait := cahttp.RetryAfter(resp.Header); wait > 0 {
		err = &issuer.Hint{After: time.Now().Add(wait), Err: err}
	}
	return err
}

// isTrouble says whether a code of CFSSL's stands for a problem of its own, by its
// package errors: the first digits are what it is about.
func isTrouble(code int) bool {
	const (
		signing  = 1000  // a certificate, for no reason that is known: not what was asked for
		notFound = 11200 // the certificate is not in the database
	)
	switch code / 1000 {
	case 2, 6, 10, 11: // its key, a remote signer, transparency logs, the database
		return code != notFound
	}
	return code == signing
}

// kind tells problems apart: by the status, and by CFSSL's words where one status
// stands for several.
func kind(endpoint string, resp *http.Response, said string, known bool) string {
	has := func(part string) bool { return strings.Contains(said, part) }
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden: // of multirootca, or of a CN that does not match
		return Forbidden
	case code == http.StatusNotFound && endpoint != "info":
		return missing[endpoint]
	case code == http.StatusNotFound:
		return UnknownEndpoint
	case code >= 500:
		return ServerError
	case !known:
		return Unreachable
	case has("invalid token"):
		return InvalidToken
	case has("authentication required"):
		return KeyRequired
	case has("no authentication provider"), has("authorisation required"):
		return KeyUnknown
	case has("bad label"):
		return UnknownLabel
	case has("invalid profile"):
		return UnknownProfile
	}
	return Rejected
}

// missing is what the lack of an endpoint means where there is info: it is there if
// some profile can be asked by it.
var missing = map[string]string{"sign": KeyRequired, "authsign": KeyUnknown, "revoke": NoDatabase}

func adviceFor(p *issuer.Problem) string {
	for _, one := range particular {
		if strings.Contains(p.Detail, one.said) {
			return one.advice
		}
	}
	return advice[p.Type]
}

// unanswered is explain where there was no answer, or none that could be read.
func unanswered(ctx context.Context, err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the address, which is said before
	}
	p := &issuer.Problem{Type: Unreachable, Detail: err.Error()}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", p, ctx.Err())
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		p.Detail = "no answer came in time"
	}
	var remote *net.OpError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("%w: give the root of CFSSL's own certificate as roots", p)
	case errors.As(err, &remote) && remote.Op == "remote error" && strings.Contains(p.Detail, "certificate"): // a TLS alert
		return fmt.Errorf("%w: the server wants a client certificate (-mutual-tls-ca), or another one", p)
	}
	return fmt.Errorf("%w: %s", p, advice[Unreachable])
}
