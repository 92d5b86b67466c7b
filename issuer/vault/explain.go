// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/issuer"
)

// Types of the [issuer.Problem] that is in an error of Vault's.
const (
	Sealed           = "sealed"           // the server was started and not unsealed
	Standby          = "standby"          // the server waits for another to be the active one
	PermissionDenied = "permissionDenied" // no policy of the token allows it, or the token is not good any more
	LoginRefused     = "loginRefused"     // what was given to log in is wrong, or has ended
	UnknownRole      = "unknownRole"      // the engine has no role of that name
	UnknownMount     = "unknownMount"     // nothing is mounted there, or another engine
	Rejected         = "rejected"         // the role does not allow the request
	RateLimited      = "rateLimited"      // a quota is used up
	ServerError      = "serverError"      // Vault itself has a problem
	Unreachable      = "unreachable"      // there was no answer, or not one of Vault's
)

// advice is what to do about a problem, by its type.
var advice = map[string]string{
	Sealed:           "unseal it, with `vault operator unseal` or by what unseals it automatically; it is tried again later",
	Standby:          "no server of the cluster is active: look at `vault status` on each, and whether the storage is there; it is tried again later",
	PermissionDenied: "the policies of the login have to allow update on the path",
	UnknownRole:      "make the role, or correct the issuer's",
	UnknownMount:     "look at `vault secrets list`, and correct the path or the namespace: nothing is mounted there, or something else",
	Rejected:         "change what the role allows, or what is asked for",
	RateLimited:      "a quota of Vault is used up; it is tried again later",
	ServerError:      "look at the server's own log; it is tried again later",
	Unreachable:      "it is tried again later; if it stays so, see whether Vault can be reached from here, and whether it is Vault that answers at the address",
}

// particular is what to do about one of several problems of a type, by a part of what
// Vault says.
var particular = []struct{ said, advice string }{
	{"common_name field is required", "let the role sign without a common name: require_cn=false"},
	{"IP Subject Alternative Names", "let the role sign IP addresses: allow_ip_sans=true"},
	{"URI Subject Alternative Names", "let the role sign the URI: allowed_uri_sans"},
	{"other_sans", "let the role sign the other name: allowed_other_sans"},
	{"not allowed by this role", "let the role sign the name: allowed_domains, allow_subdomains, allow_bare_domains, allow_wildcard_certificates"},
	{"role requires", "use a key as the role wants it, or change its key_type and key_bits"},
	{"no default issuer", "give the engine a CA, or the right one as its default"},
	{"would result in notAfter", "the certificate would outlive the CA's: ask for a shorter lifetime, lower the role's ttl, renew the CA, or set its leaf_not_after_behavior to truncate"},
}

// status returns the HTTP status of Vault's answer in an error; 0 if there is none.
func status(err error) int {
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	var p *issuer.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

// explain returns what Vault's client returned in this package's form: a problem with
// what to do about it, or another error as one line of bounded length.
func explain(ctx context.Context, err error, seen *call) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		return unanswered(ctx, err, seen)
	}
	p := &issuer.Problem{Detail: detail(answer), Status: answer.StatusCode}
	p.Type = kind(p.Status, p.Detail)
	err = fmt.Errorf("%w: %s", p, adviceFor(p))
	if p.Type == UnknownRole || p.Type == UnknownMount || p.Type == Rejected {
		err = fmt.Errorf("%w: %w", issuer.ErrRefused, err)
	}
	if seen.retryAfter > 0 {
		err = &issuer.Hint{After: time.Now().Add(seen.retryAfter), Err: err}
	}
	return err
}

// explainLogin is explain for a login: what is refused there is not the request, and
// may be another the next time.
func explainLogin(ctx context.Context, err error, seen *call, auth Auth) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		return unanswered(ctx, err, seen)
	}
	p := &issuer.Problem{Detail: detail(answer), Status: answer.StatusCode}
	p.Type = kind(p.Status, p.Detail)
	if p.Type == Rejected || p.Type == PermissionDenied || p.Type == UnknownRole {
		p.Type = LoginRefused
		err = fmt.Errorf("%w: %s", p, auth.advice())
		if p.Detail == "permission denied" { // what Vault says where nothing is mounted, too
			err = fmt.Errorf("%w; or no auth method is mounted there: `vault auth list`", err)
		}
		return err
	}
	return explain(ctx, err, seen)
}

// notVault is said where something else answers.
const notVault = "the answer is not one of Vault's"

// detail is what Vault says, without the headings of its lists.
func detail(answer *api.ResponseError) string {
	if answer.RawError {
		return notVault + ": " + strings.Join(answer.Errors, " ")
	}
	var said []string
	for line := range strings.SplitSeq(strings.Join(answer.Errors, "\n"), "\n") {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "* "))
		if line != "" && !strings.HasSuffix(line, "occurred:") {
			said = append(said, line)
		}
	}
	return cmp.Or(strings.Join(said, "; "), "Vault gives no reason")
}

// kind tells problems apart: by the status, and by Vault's words where one status
// stands for several.
func kind(code int, said string) string {
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(said, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("Vault is sealed"):
		return Sealed
	case has("not active", "no active Vault instance"):
		return Standby
	case code == 403:
		return PermissionDenied
	case has("unknown role"):
		return UnknownRole
	case code == 404 || code == 405:
		return UnknownMount
	case code == 429:
		return RateLimited
	case code >= 500:
		return ServerError
	}
	return Rejected
}

func adviceFor(p *issuer.Problem) string {
	for _, one := range particular {
		if strings.Contains(p.Detail, one.said) {
			return one.advice
		}
	}
	return advice[p.Type]
}

// unanswered is explain where there was no answer, or none of Vault's form.
func unanswered(ctx context.Context, err error, seen *call) error {
	p := &issuer.Problem{Type: Unreachable, Detail: reason(err)}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", p, ctx.Err())
	}
	if errors.Is(err, context.DeadlineExceeded) {
		p.Detail = "no answer came in time"
	}
	unknown := x509.UnknownAuthorityError{}
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: give the root of Vault's own certificate as roots, or in VAULT_CACERT", p)
	case seen.redirect != "":
		return fmt.Errorf("%w: a standby named %.200q as the active node: see whether that can be reached from here, and is the right api_addr; it is tried again later", p, seen.redirect)
	}
	return fmt.Errorf("%w: %s", p, advice[Unreachable])
}

// reason is an error's text without what the layers above it say of addresses.
func reason(err error) string {
	var request *url.Error
	var syntax *json.SyntaxError
	var form *json.UnmarshalTypeError
	switch {
	case errors.As(err, &request):
		return request.Err.Error()
	case errors.As(err, &syntax), errors.As(err, &form):
		return notVault + ": " + err.Error()
	}
	return err.Error()
}
