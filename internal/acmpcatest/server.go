// SPDX-License-Identifier: Apache-2.0

package acmpcatest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Where the CA is, and who may ask it.
const (
	Region    = "eu-west-1"
	AccessKey = "AKIDEXAMPLE"
	SecretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

	account = "123456789012"
	maxBody = 1 << 20
)

// Options say what a CA is like.
type Options struct {
	// KeyAlgorithm and SigningAlgorithm are those of the CA, in AWS's words; "" are
	// EC_prime256v1 and SHA256WITHECDSA.
	KeyAlgorithm, SigningAlgorithm string
	// ShortLived has it sign for seven days at most.
	ShortLived bool
}

// A Server has one CA, an intermediate that a root outside has signed.
type Server struct {
	// URL is the endpoint, and ARN the CA.
	URL, ARN string
	// Root is what its certificates are verified by.
	Root *x509.Certificate

	options Options
	cert    *x509.Certificate
	key     crypto.Signer

	mu      sync.Mutex
	status  string                  // guarded by mu; of the CA
	busy    int                     // guarded by mu; how often a certificate is looked for before it is there
	faults  map[string][]Fault      // guarded by mu; what is still to be answered, by call
	calls   map[string]int          // guarded by mu; how often each was made
	issued  map[string]*certificate // guarded by mu; by ARN
	byToken map[string]string       // guarded by mu; ARNs
	revoked map[string]string       // guarded by mu; reasons, by serial number
}

// A certificate is one that was asked for.
type certificate struct {
	der  []byte
	busy int // how often it is still being signed
}

// A Fault is an answer in the place of the right one.
type Fault struct {
	Status        int
	Code, Message string // AWS's name of the error
}

// Start returns a CA that answers, and ends with the test.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	if o.KeyAlgorithm == "" {
		o.KeyAlgorithm, o.SigningAlgorithm = "EC_prime256v1", "SHA256WITHECDSA"
	}
	s := &Server{
		ARN:     "arn:aws:acm-pca:" + Region + ":" + account + ":certificate-authority/12345678-1234-1234-1234-123456789012",
		options: o, status: "ACTIVE",
		faults: make(map[string][]Fault), calls: make(map[string]int), issued: make(map[string]*certificate),
		byToken: make(map[string]string), revoked: make(map[string]string),
	}
	if err := s.makeCA(); err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewServer(s)
	tb.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// SetStatus changes the CA's status, such as to DISABLED.
func (s *Server) SetStatus(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// SetBusy has each certificate that is asked for from now on be looked for so often
// before it is there.
func (s *Server) SetBusy(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = n
}

// Fail has the next calls of a name, such as IssueCertificate, answered by these.
func (s *Server) Fail(call string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[call] = faults
}

// Calls returns how often a call was made.
func (s *Server) Calls(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}

// Issued returns how many certificates were signed.
func (s *Server) Issued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.issued)
}

// Revoked returns the reason for which a certificate was revoked; "" if it was not.
func (s *Server) Revoked(leaf *x509.Certificate) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[serial(leaf)]
}

// ServeHTTP answers one call: a POST with the call's name in a header, and JSON.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	call, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "ACMPrivateCA.")
	var fault Fault
	var answer any
	switch {
	case err != nil:
		return // the client has gone
	case !ok || r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		fault = refuse("UnknownOperationException", "%s %s %s", r.Method, r.URL.Path, r.Header.Get("X-Amz-Target"))
	default:
		if fault = checkSignature(r, body, time.Now()); fault.Status == 0 {
			answer, fault = s.answer(call, body)
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if fault.Status != 0 {
		w.WriteHeader(fault.Status)
		answer = map[string]string{"__type": fault.Code, "message": fault.Message}
	}
	_ = json.NewEncoder(w).Encode(answer) // a failure shows at the client
}

func refuse(code, format string, a ...any) Fault {
	return Fault{http.StatusBadRequest, code, fmt.Sprintf(format, a...)}
}

// A request is what the calls have in common, and what some have.
type request struct {
	CertificateAuthorityArn string
	CertificateArn          string
	Csr                     []byte
	IdempotencyToken        string
	SigningAlgorithm        string
	TemplateArn             string
	Validity                struct {
		Type  string
		Value int64
	}
	CertificateSerial string
	RevocationReason  string
}

func (s *Server) answer(call string, body []byte) (any, Fault) {
	var r request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, refuse("SerializationException", "%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[call]++
	if faults := s.faults[call]; len(faults) > 0 {
		s.faults[call] = faults[1:]
		return nil, faults[0]
	}
	switch {
	case !strings.HasPrefix(r.CertificateAuthorityArn, "arn:aws:acm-pca:"+Region+":"):
		return nil, refuse("InvalidArnException", "%s is not a valid ARN", r.CertificateAuthorityArn)
	case r.CertificateAuthorityArn != s.ARN:
		return nil, refuse("ResourceNotFoundException", "Could not find Certificate Authority %s", r.CertificateAuthorityArn)
	}
	switch call {
	case "DescribeCertificateAuthority":
		return s.describeLocked(), Fault{}
	case "IssueCertificate":
		return s.issueLocked(r)
	case "GetCertificate":
		return s.getLocked(r)
	case "RevokeCertificate":
		return s.revokeLocked(r)
	}
	return nil, refuse("UnknownOperationException", "%s", call)
}
