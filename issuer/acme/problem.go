// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/issuer"
)

// Types of problems (RFC 8555 section 6.7, RFC 9773 section 7.4, draft-aaron-acme-profiles).
const (
	accountDoesNotExist     = "accountDoesNotExist"
	alreadyReplaced         = "alreadyReplaced"
	alreadyRevoked          = "alreadyRevoked"
	badCSR                  = "badCSR"
	badNonce                = "badNonce"
	badPublicKey            = "badPublicKey"
	badRevocationReason     = "badRevocationReason"
	badSignatureAlgorithm   = "badSignatureAlgorithm"
	caa                     = "caa"
	compound                = "compound"
	connection              = "connection"
	dns                     = "dns"
	externalAccountRequired = "externalAccountRequired"
	incorrectResponse       = "incorrectResponse"
	invalidContact          = "invalidContact"
	invalidProfile          = "invalidProfile"
	malformed               = "malformed"
	orderNotReady           = "orderNotReady"
	rateLimited             = "rateLimited"
	rejectedIdentifier      = "rejectedIdentifier"
	serverInternal          = "serverInternal"
	tlsProblem              = "tls"
	unauthorized            = "unauthorized"
	unsupportedContact      = "unsupportedContact"
	unsupportedIdentifier   = "unsupportedIdentifier"
	userActionRequired      = "userActionRequired"
)

// advice is what to do about a problem, by its type.
var advice = map[string]string{
	accountDoesNotExist:     "the CA has forgotten the account",
	badCSR:                  "the CA does not sign such a request: try another key type, or ask it why",
	badNonce:                "the CA refused ten nonces in a row: something on the way may answer from a cache, or the CA's servers do not know each other's; it is tried again later",
	badPublicKey:            "the CA does not sign keys of this type: choose another",
	badRevocationReason:     "give another reason",
	badSignatureAlgorithm:   "the CA does not take the account's type of key: use an account with an ECDSA P-256 key",
	caa:                     "add a CAA record that allows this CA, or use another issuer",
	connection:              "let the CA reach every address of the name, port 80 for http-01 and port 443 for tls-alpn-01, and look whether each belongs to a replica",
	dns:                     "look at the name's DNS records, as the whole world sees them",
	externalAccountRequired: "get an external account binding from the CA, and put it into the issuer's settings as eab",
	incorrectResponse:       "who answered the CA does not know the challenge: look whether every address of the name belongs to a replica",
	invalidContact:          "correct the issuer's contact",
	invalidProfile:          "leave the profile out, or use one that the CA offers",
	rateLimited:             "one of the CA's limits is used up; it is tried again when the CA allows it",
	rejectedIdentifier:      "the CA never signs for this name: use another issuer",
	serverInternal:          "the CA itself has a problem; it is tried again later",
	tlsProblem:              "look at what answers on port 443 of every address of the name: TLS must end at a replica",
	unsupportedContact:      "correct the issuer's contact: the CA takes mail addresses",
	unsupportedIdentifier:   "the CA does not sign for such names, at least not with this profile: use another issuer or profile",
	userActionRequired:      "the CA wants something of a person: most often its terms have changed, and have to be read and agreed to there",
}

// unproven is what to do about a validation that ended as unauthorized, which is said
// of accounts, too.
const unproven = "what the CA finds is not the answer: the record has to be seen by the whole world, or every address of the name has to lead to a replica"

// refused are the types of problems after which asking again is of no use.
var refused = map[string]bool{
	badCSR: true, badPublicKey: true, badRevocationReason: true, badSignatureAlgorithm: true, caa: true,
	externalAccountRequired: true, invalidContact: true, invalidProfile: true, rejectedIdentifier: true,
	unsupportedContact: true, unsupportedIdentifier: true, userActionRequired: true,
}

// explain returns what the protocol's client returned in this package's form: a
// problem with what to do about it, or another error as one line of bounded length.
func explain(err error) error {
	var p acmez.Problem
	if !errors.As(err, &p) {
		return &plain{shown(reason(err)) + ": " + cmp.Or(distrust(err), elsewhere), err}
	}
	return withAdvice(problem(&p))
}

// elsewhere is what to do where no CA has said what is wrong.
const elsewhere = "it is tried again later; if it stays so, see whether the CA can be reached from here, and whether it is the CA that answers at the issuer's directory"

// reason is an error's text without what the layers above it say of addresses and
// attempts.
func reason(err error) string {
	var request *url.Error
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &request):
		return request.Err.Error()
	case errors.As(err, &syntax):
		return "the answer is not JSON: " + syntax.Error()
	case errors.As(err, &kind):
		return "the answer is not what RFC 8555 has: " + kind.Error()
	}
	return err.Error()
}

// problem is a problem document of the CA's.
func problem(p *acmez.Problem) *issuer.Problem {
	made := flat(p)
	for i := range p.Subproblems {
		part := flat(&p.Subproblems[i].Problem)
		part.Name = p.Subproblems[i].Identifier.Value
		made.Parts = append(made.Parts, part)
	}
	return &made
}

func flat(p *acmez.Problem) issuer.Problem {
	made := issuer.Problem{Type: p.Type, Title: p.Title, Detail: p.Detail, Instance: p.Instance, Status: p.Status}
	if made.Type == "about:blank" { // RFC 9457 section 4.2.1: no more than the status says
		made.Type = ""
	}
	return made
}

// withAdvice adds what to do, and whether asking again is of no use.
func withAdvice(p *issuer.Problem) error {
	var err error = p
	say := adviceFor(p)
	if say == "" && !fromCA(p) {
		say = elsewhere
	}
	if say != "" {
		err = fmt.Errorf("%w: %s", p, say)
	}
	if isRefused(p) {
		err = fmt.Errorf("%w: %w", issuer.ErrRefused, err)
	}
	return err
}

func adviceFor(p *issuer.Problem) string {
	if say, ok := advice[p.Kind()]; ok {
		return say
	}
	if p.Kind() == unauthorized && p.Name != "" {
		return unproven
	}
	for i := range p.Parts {
		if say := adviceFor(&p.Parts[i]); say != "" {
			return say
		}
	}
	if p.Status == 429 {
		return advice[rateLimited]
	}
	if p.Status >= 500 {
		return advice[serverInternal]
	}
	return ""
}

// isRefused says whether the same request fails again. Several problems are as good
// as the best of them: one that will pass may leave the others behind.
func isRefused(p *issuer.Problem) bool {
	if p.Kind() != compound || len(p.Parts) == 0 {
		return refused[p.Kind()]
	}
	for i := range p.Parts {
		if !refused[p.Parts[i].Kind()] {
			return false
		}
	}
	return true
}

// fromCA says whether a problem is of one of ACME's types, and so the CA's word. Any
// other error may be that of a gateway on the way, and says nothing of an order.
func fromCA(p *issuer.Problem) bool { return strings.HasPrefix(p.Type, acmez.ProblemTypeNamespace) }

// gone says whether it is the CA that has what was asked for no more.
func gone(err error) bool {
	var p *issuer.Problem
	return errors.As(err, &p) && fromCA(p) && (p.Status == http.StatusNotFound || p.Status == http.StatusGone)
}

// kindOf returns the type of the problem in an error; "" if there is none.
func kindOf(err error) string {
	var p *issuer.Problem
	if errors.As(err, &p) {
		return p.Kind()
	}
	return ""
}

// statusOf returns the HTTP status of the problem in an error; 0 if there is none.
func statusOf(err error) int {
	var p *issuer.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

// A plain error is one whose text is another's, cut.
type plain struct {
	text string
	err  error
}

func (p *plain) Error() string { return p.text }
func (p *plain) Unwrap() error { return p.err }

// distrust is advice where the CA's web server is not trusted.
func distrust(err error) string {
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return "if this is a private CA, give the root of its web server as the issuer's roots"
	}
	return ""
}

// shown is a text that came from elsewhere as one line of at most 500 bytes.
func shown(s string) string { return printable.Start(s, 500) }
