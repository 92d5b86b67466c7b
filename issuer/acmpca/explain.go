// SPDX-License-Identifier: Apache-2.0

package acmpca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/smithy-go"

	"github.com/keyturn/keyturn/internal/cahttp"
	"github.com/keyturn/keyturn/issuer"
)

// Types of the [issuer.Problem] that is in an error of AWS's.
const (
	NoCredentials  = "noCredentials"  // this process has none
	BadCredentials = "badCredentials" // they are wrong, or have ended
	AccessDenied   = "accessDenied"   // no policy allows the call
	UnknownCA      = "unknownCA"      // there is no CA of that ARN, or it was deleted
	NotActive      = "notActive"      // the CA has no certificate yet
	Disabled       = "disabled"       // somebody has disabled the CA
	Expired        = "expired"        // the CA's certificate has ended
	Rejected       = "rejected"       // the CA, or the template, does not allow the request
	LimitExceeded  = "limitExceeded"  // a quota is used up
	Throttled      = "throttled"      // too much was asked at once
	InProgress     = "inProgress"     // the certificate is not signed yet
	ServerError    = "serverError"    // AWS itself has a problem
	Unreachable    = "unreachable"    // there was no answer, or not one of AWS's
)

// advice is what to do about a problem, by its type.
var advice = map[string]string{
	NoCredentials:  "give this process a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
	BadCredentials: "look at the credentials, with `aws sts get-caller-identity`, and at the clock of this machine",
	UnknownCA:      "correct the ARN; a deleted CA can be restored for some days: `aws acm-pca restore-certificate-authority`",
	NotActive:      "install the CA's certificate: `aws acm-pca import-certificate-authority-certificate`",
	Disabled:       "enable the CA: `aws acm-pca update-certificate-authority --status ACTIVE`",
	Expired:        "renew the CA's certificate and import it, or name another CA",
	Rejected:       "change the request, the lifetime, or the template: AWS says which",
	LimitExceeded:  "have the quota raised (Service Quotas, AWS Private Certificate Authority)",
	Throttled:      "it is asked again later; if it stays so, have the quota raised (Service Quotas, AWS Private Certificate Authority)",
	InProgress:     "it is asked again later, and within five minutes for the same certificate",
	ServerError:    "it is tried again later; the AWS Health Dashboard says more",
	Unreachable:    "it is tried again later; if it stays so, see whether the endpoint can be reached from here (proxy, VPC endpoint)",
}

// kinds are the problems by AWS's codes: those of the service, and those that all
// services have.
var kinds = map[string]string{
	"AccessDeniedException":       AccessDenied,
	"UnrecognizedClientException": BadCredentials,
	"InvalidClientTokenId":        BadCredentials,
	"InvalidSignatureException":   BadCredentials,
	"SignatureDoesNotMatch":       BadCredentials,
	"IncompleteSignature":         BadCredentials,
	"MissingAuthenticationToken":  BadCredentials,
	"ExpiredTokenException":       BadCredentials,
	"RequestExpired":              BadCredentials,
	"InvalidArnException":         UnknownCA,
	"ResourceNotFoundException":   UnknownCA,
	"InvalidArgsException":        Rejected,
	"InvalidRequestException":     Rejected,
	"MalformedCSRException":       Rejected,
	"ValidationException":         Rejected,
	"LimitExceededException":      LimitExceeded,
	"ThrottlingException":         Throttled,
	"Throttling":                  Throttled,
	"TooManyRequestsException":    Throttled,
	"RequestLimitExceeded":        Throttled,
	"RequestInProgressException":  InProgress,
	"RequestFailedException":      ServerError,
}

// final are the problems that asking again does not solve.
var final = map[string]bool{UnknownCA: true, Rejected: true, Expired: true}

// afterThrottling is when to come back where AWS has no room. Its quotas are per second,
// and its client has waited some seconds already.
const afterThrottling = time.Minute

func inProgress(err error) bool {
	var e *types.RequestInProgressException
	return errors.As(err, &e)
}

func alreadyRevoked(err error) bool {
	var e *types.RequestAlreadyProcessedException
	return errors.As(err, &e)
}

// explain returns what AWS's client returned in this package's form: a problem with
// what to do about it.
func (i *Issuer) explain(ctx context.Context, call string, err error) error {
	var answer smithy.APIError
	var resp *awshttp.ResponseError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %s: %w", i, call, ctx.Err())
	case !errors.As(err, &answer):
		return fmt.Errorf("%s: %s: %w", i, call, unanswered(err))
	}
	if answer.ErrorCode() == "InvalidStateException" {
		if err := i.stateNow(ctx); err != nil {
			return err
		}
	}
	p := &issuer.Problem{Detail: answer.ErrorCode() + ": " + answer.ErrorMessage()}
	var header http.Header
	if errors.As(err, &resp) && resp.Response != nil {
		p.Status, header = resp.HTTPStatusCode(), resp.Response.Header
	}
	p.Type = kind(answer.ErrorCode(), p.Status)
	err = fmt.Errorf("%s: %w", i, refused(p.Type, fmt.Errorf("%s: %w: %s", call, p, i.adviceFor(call, p.Type))))
	wait := cahttp.RetryAfter(header)
	if p.Type == Throttled {
		wait = max(wait, afterThrottling)
	}
	if wait > 0 {
		err = &issuer.Hint{After: time.Now().Add(wait), Err: err}
	}
	return err
}

func kind(code string, status int) string {
	switch k, known := kinds[code]; {
	case known:
		return k
	case status >= 500:
		return ServerError
	case status == http.StatusTooManyRequests:
		return Throttled
	case status == http.StatusForbidden:
		return BadCredentials
	}
	return Unreachable
}

func (i *Issuer) adviceFor(call, kind string) string {
	if kind == AccessDenied {
		return fmt.Sprintf("allow acm-pca:%s on the CA, for the identity that `aws sts get-caller-identity` shows", call)
	}
	return advice[kind]
}

// stateNow asks why the CA signs nothing; nil if it is active again.
func (i *Issuer) stateNow(ctx context.Context) error {
	ca, err := i.describe(ctx)
	if err != nil {
		return err
	}
	return i.state(ca)
}

// states are the problems of a CA that does not sign.
var states = map[types.CertificateAuthorityStatus]string{
	types.CertificateAuthorityStatusCreating:           NotActive,
	types.CertificateAuthorityStatusPendingCertificate: NotActive,
	types.CertificateAuthorityStatusDisabled:           Disabled,
	types.CertificateAuthorityStatusExpired:            Expired,
	types.CertificateAuthorityStatusDeleted:            UnknownCA,
	types.CertificateAuthorityStatusFailed:             UnknownCA,
}

// state says what keeps a CA from signing; nil if nothing does.
func (i *Issuer) state(ca *types.CertificateAuthority) error {
	kind, off := states[ca.Status]
	if !off {
		return nil
	}
	p := &issuer.Problem{Type: kind, Detail: "the CA has the status " + string(ca.Status)}
	return fmt.Errorf("%s: %w", i, refused(kind, fmt.Errorf("%w: %s", p, advice[kind])))
}

// refused makes the error of a final problem one that says so.
func refused(kind string, err error) error {
	if final[kind] {
		return fmt.Errorf("%w: %w", issuer.ErrRefused, err)
	}
	return err
}

// unanswered is explain where there was no answer, or none of AWS's form.
func unanswered(err error) error {
	p := &issuer.Problem{Type: Unreachable, Detail: err.Error()}
	var request *url.Error
	var resp *awshttp.ResponseError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &resp) && resp.HTTPStatusCode() >= 500:
		p.Type, p.Status, p.Detail = ServerError, resp.HTTPStatusCode(), "the answer is not one of AWS's: "+resp.Err.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		p.Detail = "no answer came in time"
	case errors.As(err, &request):
		p.Detail = request.Err.Error() // without what the layers above say of addresses
	}
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return fmt.Errorf("%w: give the root of the endpoint's certificate in AWS_CA_BUNDLE", p)
	}
	return fmt.Errorf("%w: %s", p, advice[p.Type])
}
