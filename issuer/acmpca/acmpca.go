// SPDX-License-Identifier: Apache-2.0

package acmpca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/keyturn/keyturn/internal/certchain"
	"github.com/keyturn/keyturn/issuer"
)

var (
	_ issuer.Issuer  = (*Issuer)(nil)
	_ issuer.Revoker = (*Issuer)(nil)
)

// The back-off between two looks at a certificate that is being signed. AWS's own
// waiter begins at a second, which most certificates take less than.
const (
	minDelay = 200 * time.Millisecond
	maxDelay = 10 * time.Second
)

// An Issuer has requests signed by a CA of AWS's.
type Issuer struct {
	config Config
	cfg    aws.Config
	client *acmpca.Client
	http   *httpClient

	mu    sync.Mutex
	known *traits // guarded by mu; nil until the CA was asked
}

// traits are what never changes of a CA.
type traits struct {
	algorithm  types.SigningAlgorithm
	shortLived bool // it signs for seven days at most
}

// New returns an issuer. It reads the environment and the shared files, and asks
// nobody.
func New(c Config) (*Issuer, error) {
	c, region, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("configuring AWS Private CA: %w", err)
	}
	i := &Issuer{config: c}
	if i.cfg, i.client, i.http, err = newClient(c, region); err != nil {
		return nil, fmt.Errorf("configuring AWS Private CA: %w", err)
	}
	return i, nil
}

// Close lets go of connections that nobody uses. Calls that are under way go on.
func (i *Issuer) Close() error {
	i.http.base.CloseIdleConnections()
	return nil
}

// Issue is [issuer.Issuer]'s. AWS signs the names and the subject of the request, as
// far as the template takes them from it.
//
// While AWS is at it, it is asked again, as long as Config.Patience. A call for the
// same request within five minutes goes on with the same certificate.
//
// The chain is what AWS hands out, without the root. An error that AWS has answered with
// has an *[issuer.Problem] in it, whose Type is one of this package's.
func (i *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	if err := issuer.CheckRequest(csr, lifetime); err != nil {
		return nil, err
	}
	if err := i.credentials(ctx); err != nil {
		return nil, err
	}
	ca, err := i.ca(ctx)
	if err != nil {
		return nil, err
	}
	validity := i.validity(lifetime, ca)
	made, err := i.client.IssueCertificate(ctx, &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: &i.config.ARN,
		Csr:                     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}),
		IdempotencyToken:        aws.String(i.token(csr, validity, ca)),
		SigningAlgorithm:        ca.algorithm,
		TemplateArn:             &i.config.Template,
		Validity:                validity,
	})
	if err != nil {
		return nil, i.explain(ctx, "IssueCertificate", err)
	}
	answer, err := i.await(ctx, aws.ToString(made.CertificateArn))
	if err != nil {
		return nil, i.explain(ctx, "GetCertificate", err)
	}
	chain, err := chainOf(answer)
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", i, err)
	}
	return chain, nil
}

// ca asks for what has to be known of the CA, once.
func (i *Issuer) ca(ctx context.Context) (*traits, error) {
	i.mu.Lock()
	known := i.known
	i.mu.Unlock()
	if known != nil {
		return known, nil
	}
	ca, err := i.describe(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.state(ca); err != nil {
		return nil, err
	}
	known = &traits{shortLived: ca.UsageMode == types.CertificateAuthorityUsageModeShortLivedCertificate}
	if c := ca.CertificateAuthorityConfiguration; c != nil {
		known.algorithm = c.SigningAlgorithm
	}
	if known.algorithm == "" {
		return nil, fmt.Errorf("%s: the description of the CA has no signing algorithm", i)
	}
	i.mu.Lock()
	i.known = known
	i.mu.Unlock()
	return known, nil
}

func (i *Issuer) describe(ctx context.Context) (*types.CertificateAuthority, error) {
	answer, err := i.client.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityInput{CertificateAuthorityArn: &i.config.ARN})
	if err != nil {
		return nil, i.explain(ctx, "DescribeCertificateAuthority", err)
	}
	if answer.CertificateAuthority == nil {
		return nil, fmt.Errorf("%s: the answer has no description of the CA", i)
	}
	return answer.CertificateAuthority, nil
}

// validity says how long a certificate is to be valid, in a way that is the same when
// it is asked for again, as far as that can be.
func (i *Issuer) validity(lifetime time.Duration, ca *traits) *types.Validity {
	const day = 24 * time.Hour
	if lifetime == 0 {
		lifetime = i.config.Lifetime
	}
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	if ca.shortLived {
		lifetime = min(lifetime, maxShortLived)
	}
	if lifetime%day == 0 {
		return &types.Validity{Type: types.ValidityPeriodTypeDays, Value: aws.Int64(int64(lifetime / day))}
	}
	end := time.Now().Add(lifetime + time.Minute - 1).Truncate(time.Minute)
	return &types.Validity{Type: types.ValidityPeriodTypeAbsolute, Value: aws.Int64(end.Unix())}
}

// token is the same for all that asks for the same certificate: 32 of the 36
// characters that AWS takes.
func (i *Issuer) token(csr *x509.CertificateRequest, v *types.Validity, ca *traits) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s %s %d\n", i.config.ARN, i.config.Template, ca.algorithm, v.Type, *v.Value)
	h.Write(csr.Raw)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// await asks for a certificate until it is signed.
func (i *Issuer) await(ctx context.Context, certificate string) (*acmpca.GetCertificateOutput, error) {
	var last error
	began := time.Now()
	waiter := acmpca.NewCertificateIssuedWaiter(i.client, func(o *acmpca.CertificateIssuedWaiterOptions) {
		o.MinDelay, o.MaxDelay = minDelay, maxDelay
		// The waiter's own hides what AWS says.
		o.Retryable = func(_ context.Context, _ *acmpca.GetCertificateInput, _ *acmpca.GetCertificateOutput, err error) (bool, error) {
			if last = err; inProgress(err) {
				return true, nil
			}
			return false, err
		}
	})
	answer, err := waiter.WaitForOutput(ctx, &acmpca.GetCertificateInput{
		CertificateAuthorityArn: &i.config.ARN, CertificateArn: &certificate,
	}, i.config.Patience)
	switch {
	case err != nil && inProgress(last): // patience is over
		return nil, last
	case err != nil && ctx.Err() == nil && time.Since(began) >= i.config.Patience: // during a call
		return nil, &types.RequestInProgressException{Message: aws.String("no answer came within " + i.config.Patience.String())}
	}
	return answer, err
}

// chainOf returns the chain in an answer.
func chainOf(answer *acmpca.GetCertificateOutput) ([][]byte, error) {
	leaf, err := certchain.One(aws.ToString(answer.Certificate))
	if err != nil {
		return nil, fmt.Errorf("the certificate: %w", err)
	}
	cas, err := certchain.Parse(aws.ToString(answer.CertificateChain))
	if err != nil {
		return nil, fmt.Errorf("the chain: %w", err)
	}
	return certchain.Link(leaf, cas)
}

// Revoke is [issuer.Revoker]'s. It is authorised by the credentials alone: the key is
// not sent anywhere. AWS publishes it in the CA's list (CRL) and by OCSP, where these
// are configured.
func (i *Issuer) Revoke(ctx context.Context, leaf *x509.Certificate, _ crypto.Signer, reason issuer.Reason) error {
	if err := i.credentials(ctx); err != nil {
		return err
	}
	_, err := i.client.RevokeCertificate(ctx, &acmpca.RevokeCertificateInput{
		CertificateAuthorityArn: &i.config.ARN,
		CertificateSerial:       aws.String(serial(leaf)),
		RevocationReason:        types.RevocationReason(strings.ToUpper(strings.ReplaceAll(reason.String(), "-", "_"))),
	})
	if err != nil && !alreadyRevoked(err) {
		return i.explain(ctx, "RevokeCertificate", err)
	}
	return nil
}

// serial is a serial number as AWS wants it, and openssl shows it: its bytes in
// hexadecimal, with colons.
func serial(leaf *x509.Certificate) string {
	var parts []string
	for _, b := range leaf.SerialNumber.Bytes() {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}
