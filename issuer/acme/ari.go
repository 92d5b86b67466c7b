// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/issuer"
)

// How often to ask for renewal information (RFC 9773 section 4.3): six hours where
// the CA does not say, and within limits of our own where it does.
const (
	renewalPoll    = 6 * time.Hour
	minRenewalPoll = time.Minute
	maxRenewalPoll = 24 * time.Hour
)

// maxExplanation bounds the address of an explanation, in bytes.
const maxExplanation = 2000

// RenewalInfo asks the CA when it wants the certificate renewed (RFC 9773). It needs
// no account.
func (ca *CA) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (issuer.RenewalInfo, error) {
	s, err := ca.anonymous(ctx)
	if err != nil {
		return issuer.RenewalInfo{}, err
	}
	if s.RenewalInfo == "" {
		return issuer.RenewalInfo{}, fmt.Errorf("asking %s when to renew: %w", ca.config.Name, issuer.ErrNoRenewalInfo)
	}
	id, err := certID(leaf)
	if err != nil {
		return issuer.RenewalInfo{}, fmt.Errorf("asking %s when to renew: %w: %w", ca.config.Name, issuer.ErrNoRenewalInfo, err)
	}
	var answer renewalAnswer
	seen, err := ca.ask(ctx, "asking when to renew", func(ctx context.Context) error {
		return ca.get(ctx, strings.TrimSuffix(s.RenewalInfo, "/")+"/"+id, &answer)
	})
	if err != nil {
		return issuer.RenewalInfo{}, err
	}
	info, err := answer.info(seen.retryAfter)
	if err != nil {
		return issuer.RenewalInfo{}, fmt.Errorf("asking %s when to renew: %w", ca.config.Name, err)
	}
	return info, nil
}

// renewalAnswer is that of RFC 9773 section 4.2.
type renewalAnswer struct {
	Window struct {
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
	} `json:"suggestedWindow"`
	Explanation string `json:"explanationURL"`
}

func (a renewalAnswer) info(retryAfter time.Duration) (issuer.RenewalInfo, error) {
	info := issuer.RenewalInfo{Start: a.Window.Start, End: a.Window.End, Poll: renewalPoll}
	if info.Start.IsZero() || !info.End.After(info.Start) {
		return issuer.RenewalInfo{}, errors.New("the window that it suggests does not end after its start")
	}
	if retryAfter > 0 {
		info.Poll = min(max(retryAfter, minRenewalPoll), maxRenewalPoll)
	}
	if u, err := url.Parse(a.Explanation); err == nil && (u.Scheme == "https" || u.Scheme == "http") && len(a.Explanation) <= maxExplanation {
		info.Explanation = u.String()
	}
	return info, nil
}

// certID is the certificate's name in renewal information and in orders that
// replace it (RFC 9773 section 4.1).
func certID(leaf *x509.Certificate) (string, error) {
	if len(leaf.AuthorityKeyId) == 0 {
		return "", errors.New("the certificate has no authority key identifier, by which RFC 9773 names it")
	}
	return acmez.ARIUniqueIdentifier(leaf)
}
