// SPDX-License-Identifier: Apache-2.0

package acmpca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmpcatest"
	"github.com/keyturn/keyturn/internal/hostileca"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acmpca"
	"github.com/keyturn/keyturn/issuer/issuertest"
)

// A fault is a way in which AWS does not sign.
type fault struct {
	title    string
	config   acmpca.Config
	env      map[string]string
	request  *x509.CertificateRequest // nil for one of www.example.com
	lifetime time.Duration
	status   string             // of the CA
	answer   []acmpcatest.Fault // to IssueCertificate
	kind     string
	refused  bool
	says     string // what to do
}

// again is an answer that AWS's client meets in each of its three attempts.
func again(status int, code, message string) []acmpcatest.Fault {
	f := acmpcatest.Fault{Status: status, Code: code, Message: message}
	return []acmpcatest.Fault{f, f, f}
}

const unknownARN = "arn:aws:acm-pca:" + acmpcatest.Region + ":123456789012:certificate-authority/00000000-0000-0000-0000-000000000000"

// TestFaults is the table of failures: what each is taken for, and what the error says
// to do.
func TestFaults(t *testing.T) {
	ed25519, err := issuer.Ed25519.Generate()
	if err != nil {
		t.Fatal(err)
	}
	odd, err := issuer.NewRequest(ed25519, []string{"www.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []fault{
		{
			title: "no credentials", env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
			kind: acmpca.NoCredentials, says: "give this process a role",
		}, {
			title: "unknown access key", env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIDOTHER"},
			kind: acmpca.BadCredentials, says: "aws sts get-caller-identity",
		}, {
			title: "wrong secret", env: map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong"},
			kind: acmpca.BadCredentials, says: "aws sts get-caller-identity",
		}, {
			title: "access denied", answer: again(400, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/web is not authorized to perform: acm-pca:IssueCertificate"),
			kind: acmpca.AccessDenied, says: "allow acm-pca:IssueCertificate on the CA",
		}, {
			title: "unknown CA", config: acmpca.Config{ARN: unknownARN},
			kind: acmpca.UnknownCA, refused: true, says: "correct the ARN",
		}, {
			title: "other region", config: acmpca.Config{ARN: strings.Replace(unknownARN, acmpcatest.Region, "eu-north-1", 1)},
			kind: acmpca.BadCredentials, says: "another region",
		}, {
			title: "pending", status: "PENDING_CERTIFICATE",
			kind: acmpca.NotActive, says: "import-certificate-authority-certificate",
		}, {
			title: "disabled", status: "DISABLED",
			kind: acmpca.Disabled, says: "--status ACTIVE",
		}, {
			title: "expired", status: "EXPIRED",
			kind: acmpca.Expired, refused: true, says: "name another CA",
		}, {
			title: "deleted", status: "DELETED",
			kind: acmpca.UnknownCA, refused: true, says: "restore-certificate-authority",
		}, {
			title: "longer than the CA", lifetime: 400 * 24 * time.Hour,
			kind: acmpca.Rejected, refused: true, says: "exceeds the certificate authority validity",
		}, {
			title: "key type", request: odd,
			kind: acmpca.Rejected, refused: true, says: "MalformedCSRException",
		}, {
			title: "unknown template", config: acmpca.Config{Template: "NoSuchCertificate/V1"},
			kind: acmpca.Rejected, refused: true, says: "Unsupported TemplateArn arn:aws:acm-pca:::template/NoSuchCertificate/V1",
		}, {
			title: "quota", answer: again(400, "LimitExceededException", "1000000 certificates"),
			kind: acmpca.LimitExceeded, says: "Service Quotas",
		}, {
			title: "failed", answer: again(400, "RequestFailedException", "The request has failed"),
			kind: acmpca.ServerError, says: "it is tried again later",
		}, {
			title: "internal failure", answer: again(500, "InternalFailure", "oops"),
			kind: acmpca.ServerError, says: "it is tried again later",
		}, {
			title: "unknown code", answer: again(400, "TeapotException", "short and stout"),
			kind: acmpca.Unreachable, says: "TeapotException: short and stout",
		}, {
			title: "nobody there", config: acmpca.Config{Endpoint: "http://127.0.0.1:1"},
			kind: acmpca.Unreachable, says: "connection refused",
		},
	} {
		t.Run(f.title, func(t *testing.T) {
			environment(t)
			s := acmpcatest.Start(t, acmpcatest.Options{})
			for name, value := range f.env {
				t.Setenv(name, value)
			}
			if f.status != "" {
				s.SetStatus(f.status)
			}
			s.Fail("IssueCertificate", f.answer...)
			ca := newIssuer(t, s, f.config)
			checkFault(t, ca, f)
			if f.status != "" {
				s.SetStatus("ACTIVE")
				issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
				s.SetStatus(f.status) // while the CA is known
				checkFault(t, ca, f)
			}
		})
	}
}

func checkFault(t *testing.T, ca *acmpca.Issuer, f fault) {
	t.Helper()
	if f.request == nil {
		f.request = issuertest.Named(t, "www.example.com")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	chain, err := ca.Issue(ctx, f.request, f.lifetime)
	if err == nil || chain != nil {
		t.Fatalf("%d certificates, error %v", len(chain), err)
	}
	t.Log(err)
	var p *issuer.Problem
	if !errors.As(err, &p) || p.Type != f.kind {
		t.Errorf("the problem is %+v, want type %s", p, f.kind)
	}
	if errors.Is(err, issuer.ErrRefused) != f.refused {
		t.Errorf("refused: %v, want %v", !f.refused, f.refused)
	}
	if !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), ca.String()) {
		t.Errorf("it says nothing of %q and %s", f.says, ca)
	}
	if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), acmpcatest.SecretKey) {
		t.Error("it has several lines, or a secret in it")
	}
}

// TestInProgress has AWS take its time: less than the patience, and more. Who asks
// again gets the certificate that was asked for first.
func TestInProgress(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	s.SetBusy(3)
	issuertest.Issue(t, newIssuer(t, s, acmpca.Config{}), issuertest.Named(t, "www.example.com"), 0)
	if n := s.Calls("GetCertificate"); n != 4 {
		t.Errorf("it was looked for %d times, want three and once more", n)
	}
	s.SetBusy(1)
	csr := issuertest.Named(t, "www.example.com")
	hasty := newIssuer(t, s, acmpca.Config{Patience: 100 * time.Millisecond})
	checkFault(t, hasty, fault{request: csr, kind: acmpca.InProgress, says: "for the same certificate"})
	issuertest.Issue(t, newIssuer(t, s, acmpca.Config{}), csr, 0)
	if n := s.Issued(); n != 2 {
		t.Errorf("%d certificates were made, want two", n)
	}
}

// TestImpatience has the answer itself come too late.
func TestImpatience(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	hung := make(chan struct{})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetCertificate") {
			<-hung
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	t.Cleanup(func() { close(hung) })
	ca := newIssuer(t, s, acmpca.Config{Endpoint: front.URL, Patience: 100 * time.Millisecond})
	checkFault(t, ca, fault{kind: acmpca.InProgress, says: "no answer came within 100ms"})
}

// TestThrottling has AWS without room: for a moment, which its client waits for, and
// for longer, which the caller is told.
func TestThrottling(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	ca := newIssuer(t, s, acmpca.Config{})
	full := again(400, "ThrottlingException", "Rate exceeded")
	s.Fail("IssueCertificate", full[:2]...)
	issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
	s.Fail("IssueCertificate", full...)
	_, err := ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0)
	var p *issuer.Problem
	if !errors.As(err, &p) || p.Type != acmpca.Throttled || errors.Is(err, issuer.ErrRefused) {
		t.Fatalf("the error is %v", err)
	}
	after, said := issuer.RetryAfter(err)
	if left := time.Until(after); !said || left < 50*time.Second || left > time.Minute {
		t.Errorf("it is to be asked again in %s (%v)", left, said)
	}
}

// TestContextEnds has the caller's own limit end a call that waits for a certificate.
func TestContextEnds(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	s.SetBusy(1 << 20)
	ca := newIssuer(t, s, acmpca.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := ca.Issue(ctx, issuertest.Named(t, "www.example.com"), 0)
		ended <- err
	}()
	for s.Calls("GetCertificate") == 0 {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v in it", err, context.Canceled)
	}
}

// TestProfile takes credentials from a profile of the shared files, and an endpoint from
// the environment.
func TestProfile(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	path := filepath.Join(t.TempDir(), "credentials")
	text := "[web]\naws_access_key_id = " + acmpcatest.AccessKey + "\naws_secret_access_key = " + acmpcatest.SecretKey + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": path, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL_ACM_PCA": s.URL,
	} {
		t.Setenv(name, value)
	}
	issuertest.Issue(t, open(t, acmpca.Config{ARN: s.ARN, Profile: "web"}), issuertest.Named(t, "www.example.com"), 0)
	if _, err := acmpca.New(acmpca.Config{ARN: s.ARN, Profile: "mail"}); err == nil || !strings.Contains(err.Error(), "mail") {
		t.Errorf("a profile that is not there: %v", err)
	}
	t.Setenv("AWS_ENDPOINT_URL_ACM_PCA", "http://pca.example.com")
	checkFault(t, open(t, acmpca.Config{ARN: s.ARN, Profile: "web"}), fault{kind: acmpca.Unreachable, says: "pca.example.com is not https"})
}

// TestCredentialsAreLost has credentials that end, while the CA is known, and no others
// to be had.
func TestCredentialsAreLost(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	given := filepath.Join(t.TempDir(), "given")
	text := `{"Version":1,"AccessKeyId":"` + acmpcatest.AccessKey + `","SecretAccessKey":"` + acmpcatest.SecretKey + `","Expiration":"2020-01-01T00:00:00Z"}`
	settings := filepath.Join(t.TempDir(), "config")
	for path, text := range map[string]string{given: text, settings: "[default]\ncredential_process = cat " + given + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{"AWS_CONFIG_FILE": settings, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""} {
		t.Setenv(name, value)
	}
	ca := newIssuer(t, s, acmpca.Config{})
	issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
	if err := os.Remove(given); err != nil {
		t.Fatal(err)
	}
	checkFault(t, ca, fault{kind: acmpca.NoCredentials, says: "give this process a role"})
}

// TestCABundle has an endpoint with a certificate of its own.
func TestCABundle(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	checkFault(t, newIssuer(t, s, acmpca.Config{Endpoint: server.URL}), fault{kind: acmpca.Unreachable, says: "AWS_CA_BUNDLE"})
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte(hostileca.PEM(server.Certificate().Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", path)
	issuertest.Issue(t, newIssuer(t, s, acmpca.Config{Endpoint: server.URL}), issuertest.Named(t, "www.example.com"), 0)
}

// TestUnsigned holds that the stand-in does look at signatures.
func TestUnsigned(t *testing.T) {
	s := acmpcatest.Start(t, acmpcatest.Options{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "ACMPrivateCA.IssueCertificate")
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || s.Calls("IssueCertificate") != 0 {
		t.Errorf("the status is %s", resp.Status)
	}
}
