// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/issuer"
)

// checkCAA looks whether the CAA records of the names let this CA sign, before it
// is asked. What cannot be looked up is left to the CA, which looks for itself and
// whose view alone counts: a broken resolver here must not cost a certificate. So is
// everything where the CA does not say how CAA records call it.
func (j *job) checkCAA(ctx context.Context) error {
	identities := j.Meta.CAAIdentities
	if j.ca.config.SkipCAA || len(identities) == 0 {
		return nil
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, maxAtOnce)
	errs := make([]error, len(j.names))
	for i, id := range j.names {
		if id.Type != typeDNS { // RFC 8738 section 7: there are none for addresses
			continue
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			base, wildcard := strings.CutPrefix(id.Value, "*.")
			records, where, err := j.ca.resolver.CAA(ctx, base)
			if err != nil {
				j.ca.config.Logger.WarnContext(ctx, "CAA records could not be looked up: that is left to the CA", "issuer", j.ca.config.Name, "name", id.Value, "error", err)
				return
			}
			ask := caaRequest{identities, wildcard, j.account.Location, j.challengeFor(id, wildcard)}
			if err := ask.check(records); err != nil {
				errs[i] = fmt.Errorf("%s: at %s, %w", id.Value, where, err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("looking up CAA records for %s: %w", j.ca.config.Name, ctx.Err())
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if err := joined(errs); err != nil {
		return fmt.Errorf("%w: CAA records forbid %s to sign: %w: %s", issuer.ErrRefused, j.ca.config.Name, err, allowing(identities))
	}
	return nil
}

// allowing says which record would do.
func allowing(identities []string) string {
	return fmt.Sprintf(`add a record like CAA 0 issue "%s" there, or use another issuer`, shown(identities[0]))
}

// A caaRequest is what is asked of a relevant record set.
type caaRequest struct {
	identities []string // how CAA records call the CA
	wildcard   bool
	account    string // its URL
	challenge  string // the validation method
}

// Properties (RFC 8659 section 4, and the registry that it makes). Those without a
// meaning for TLS certificates are known: a critical one of them forbids nothing.
const (
	tagIssue     = "issue"
	tagIssueWild = "issuewild"
)

var knownTags = []string{tagIssue, tagIssueWild, "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"}

// check returns an error unless the records let the CA sign. It begins with the
// record that forbids it.
func (r caaRequest) check(records []resolve.CAA) error {
	for _, record := range records {
		if record.Critical && !slices.Contains(knownTags, strings.ToLower(record.Tag)) {
			return fmt.Errorf("the record CAA 128 %s %q, which is critical and of an unknown kind,", shown(record.Tag), shown(record.Value))
		}
	}
	relevant := tagged(records, tagIssue)
	if r.wildcard {
		if wild := tagged(records, tagIssueWild); len(wild) > 0 {
			relevant = wild // RFC 8659 section 4.3: then issue does not count
		}
	}
	var why error
	for _, record := range relevant {
		if why = r.allowed(record.Value); why == nil {
			return nil
		}
	}
	if why == nil || len(relevant) > 1 {
		return several(relevant)
	}
	return fmt.Errorf("%s %w", written(relevant[0]), why)
}

func tagged(records []resolve.CAA, tag string) []resolve.CAA {
	return slices.DeleteFunc(slices.Clone(records), func(c resolve.CAA) bool { return !strings.EqualFold(c.Tag, tag) })
}

// several is why none of several records allows it; nil if there are none.
func several(relevant []resolve.CAA) error {
	if len(relevant) == 0 {
		return nil
	}
	var all []string
	for _, record := range relevant {
		all = append(all, written(record))
	}
	const most = 5
	if n := len(all) - most; n > 0 {
		all = append(all[:most], fmt.Sprintf("%d more", n))
	}
	return fmt.Errorf("none of %s allows it", strings.Join(all, ", "))
}

func written(record resolve.CAA) string {
	return fmt.Sprintf("CAA 0 %s %q", shown(record.Tag), shown(record.Value))
}

// Why a record does not let the CA sign.
var (
	errOtherCA     = errors.New("is for another CA")
	errNoCA        = errors.New("forbids all CAs")
	errMalformed   = errors.New("is malformed, which forbids all CAs")
	errOtherMethod = errors.New("does not allow this challenge")
	errOtherAcct   = errors.New("is for another account")
)

// allowed returns nil if the value of an issue or issuewild property names the CA,
// and this account and challenge where it names any (RFC 8657).
func (r caaRequest) allowed(value string) error {
	domain, rest, more := strings.Cut(value, ";")
	domain = strings.Trim(domain, " \t")
	parameters, err := caaParameters(rest, more)
	switch {
	case err != nil:
		return err
	case domain == "":
		return errNoCA
	case !slices.ContainsFunc(r.identities, func(id string) bool { return strings.EqualFold(id, domain) }):
		return errOtherCA
	}
	for _, p := range parameters {
		switch p.tag {
		case "accounturi":
			if p.value != r.account {
				return errOtherAcct
			}
		case "validationmethods":
			if !slices.Contains(strings.Split(p.value, ","), r.challenge) {
				return errOtherMethod
			}
		}
	}
	return nil
}

type caaParameter struct{ tag, value string }

// caaParameters reads those of RFC 8659 section 4.2, without regard to the letter
// case of their tags.
func caaParameters(text string, given bool) (all []caaParameter, err error) {
	if !given || strings.Trim(text, " \t") == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ";") {
		tag, value, ok := strings.Cut(strings.Trim(one, " \t"), "=")
		if !ok || tag == "" || strings.ContainsAny(tag, " \t") {
			return nil, errMalformed
		}
		all = append(all, caaParameter{strings.ToLower(strings.Trim(tag, " \t")), strings.Trim(value, " \t")})
	}
	return all, nil
}
