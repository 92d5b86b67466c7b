// SPDX-License-Identifier: Apache-2.0

package cfssl_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cfsslserver"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/cfssl"
	"github.com/keyturn/keyturn/issuer/issuertest"
)

// A fault is a way in which CFSSL does not sign.
type fault struct {
	title   string
	server  *cfsslserver.Server
	config  cfssl.Config
	request *x509.CertificateRequest // nil for one of www.example.com
	harm    func(*testing.T, *cfsslserver.Server)
	mend    func(*testing.T, *cfsslserver.Server) // nil if it stays
	kind    string
	refused bool
	says    string // what to do
}

// TestFaults is the table of CFSSL's failures: what each is taken for, and what the
// error says to do.
func TestFaults(t *testing.T) {
	open := cfsslserver.Start(t, cfsslserver.Options{Default: cfsslserver.Profile{Names: `\.example\.com$`}})
	mixed := cfsslserver.Start(t, cfsslserver.Options{Profiles: map[string]cfsslserver.Profile{
		"web": {Key: key}, "mail": {Key: wrongKey, Usages: []string{"email protection"}},
	}})
	closed := cfsslserver.Start(t, cfsslserver.Options{Default: cfsslserver.Profile{Key: key}})
	roots := cfsslserver.Start(t, cfsslserver.Options{Label: "blue", Profiles: map[string]cfsslserver.Profile{"web": {Key: key}}})
	fenced := cfsslserver.Start(t, cfsslserver.Options{Label: "blue", Nets: "192.0.2.0/24", Default: cfsslserver.Profile{Key: key}})
	keeping := cfsslserver.Start(t, cfsslserver.Options{Database: true})
	for _, f := range []fault{
		{
			title: "wrong key", server: mixed, config: cfssl.Config{Profile: "web", AuthKey: wrongKey},
			kind: cfssl.InvalidToken, says: "auth_key",
		}, {
			title: "no key", server: mixed, config: cfssl.Config{Profile: "web"},
			kind: cfssl.KeyRequired, refused: true, says: "authentication required",
		}, {
			title: "no key, and all profiles have one", server: closed,
			kind: cfssl.KeyRequired, refused: true, says: "no endpoint sign",
		}, {
			title: "a key, and the profile has none", server: mixed, config: cfssl.Config{AuthKey: key},
			kind: cfssl.KeyUnknown, refused: true, says: "leave the key out",
		}, {
			title: "a key, and no profile has one", server: open, config: cfssl.Config{AuthKey: key},
			kind: cfssl.KeyUnknown, refused: true, says: "no endpoint authsign",
		}, {
			title: "unknown label", server: roots, config: cfssl.Config{Label: "green", Profile: "web", AuthKey: key},
			kind: cfssl.UnknownLabel, refused: true, says: "correct the label",
		}, {
			title: "no label", server: roots, config: cfssl.Config{Profile: "web", AuthKey: key},
			kind: cfssl.UnknownLabel, refused: true, says: "correct the label",
		}, {
			title: "unknown profile", server: roots, config: cfssl.Config{Label: "blue", Profile: "mail", AuthKey: key},
			kind: cfssl.UnknownProfile, refused: true, says: "correct the profile",
		}, {
			title: "a key, and multirootca's profile has none", server: roots, config: cfssl.Config{Label: "blue", AuthKey: key},
			kind: cfssl.KeyUnknown, refused: true, says: "leave the key out",
		}, {
			title: "another network", server: fenced, config: cfssl.Config{Label: "blue", AuthKey: key},
			kind: cfssl.Forbidden, refused: true, says: "whitelist of multirootca",
		}, {
			title: "broken database", server: keeping,
			harm: func(t *testing.T, s *cfsslserver.Server) { s.BreakDatabase(t) },
			kind: cfssl.ServerError, says: "look at the server's own log",
		}, {
			title: "name not allowed", server: open, request: issuertest.Named(t, "www.example.net"),
			kind: cfssl.Rejected, refused: true, says: "name_whitelist",
		}, {
			title: "CA", server: open, request: issuertest.Request(t, x509.CertificateRequest{
				DNSNames: []string{"www.example.com"}, ExtraExtensions: []pkix.Extension{isCA(t)},
			}),
			kind: cfssl.Rejected, refused: true, says: "does not sign CA certificates",
		}, {
			title: "no CFSSL below the path", server: open, config: cfssl.Config{Address: open.Address + "/ca"},
			kind: cfssl.UnknownEndpoint, says: "look at the address",
		}, {
			title: "another root", server: open, config: cfssl.Config{Roots: x509.NewCertPool()},
			kind: cfssl.Unreachable, says: "as roots",
		}, {
			title: "hung", server: open, config: cfssl.Config{Timeout: time.Second},
			harm: func(t *testing.T, s *cfsslserver.Server) { s.Hang(t) },
			mend: func(t *testing.T, s *cfsslserver.Server) { s.Continue(t) },
			kind: cfssl.Unreachable, says: "no answer came in time",
		}, {
			title: "down", server: open,
			harm: func(t *testing.T, s *cfsslserver.Server) { s.Stop(t) },
			mend: func(t *testing.T, s *cfsslserver.Server) { s.Restart(t) },
			kind: cfssl.Unreachable, says: "whether CFSSL can be reached from here",
		},
	} {
		t.Run(f.title, func(t *testing.T) {
			ca := newIssuer(t, f.server, f.config)
			patient := ca
			if f.config.Timeout > 0 {
				patient = newIssuer(t, f.server, cfssl.Config{})
			}
			if f.harm != nil {
				issuertest.Issue(t, patient, issuertest.Named(t, "www.example.com"), 0) // so that there are connections
				f.harm(t, f.server)
			}
			checkFault(t, ca, f, f.server)
			if f.mend != nil {
				f.mend(t, f.server)
				issuertest.Issue(t, patient, issuertest.Named(t, "www.example.com"), 0)
			}
		})
	}
}

// TestOtherUse has a profile that signs for something else than TLS, which Check
// notices.
func TestOtherUse(t *testing.T) {
	s := cfsslserver.Start(t, cfsslserver.Options{Default: cfsslserver.Profile{Usages: []string{"email protection"}}})
	csr := issuertest.Named(t, "www.example.com")
	chain, err := newIssuer(t, s, cfssl.Config{}).Issue(t.Context(), csr, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.Check(chain, csr, time.Now()); !errors.Is(err, issuer.ErrWrongUsage) {
		t.Errorf("the error is %v, want %v", err, issuer.ErrWrongUsage)
	}
}

// TestUnknownProfile holds what the documentation warns of: "cfssl serve" signs by its
// default profile instead.
func TestUnknownProfile(t *testing.T) {
	s := cfsslserver.Start(t, cfsslserver.Options{Profiles: map[string]cfsslserver.Profile{"web": {}}})
	issuertest.Issue(t, newIssuer(t, s, cfssl.Config{Profile: "wbe"}), issuertest.Named(t, "www.example.com"), 0)
}

// TestRevokeFaults: a server without a database, and one that does not know the
// certificate.
func TestRevokeFaults(t *testing.T) {
	plain := cfsslserver.Start(t, cfsslserver.Options{})
	leaf, _ := issuertest.Issue(t, newIssuer(t, plain, cfssl.Config{}), issuertest.Named(t, "www.example.com"), 0)
	keeping := cfsslserver.Start(t, cfsslserver.Options{Database: true})
	for _, f := range []fault{
		{server: plain, kind: cfssl.NoDatabase, refused: true, says: "-db-config"},
		{server: keeping, kind: cfssl.Rejected, refused: true, says: "signed by another CA"},
	} {
		err := newIssuer(t, f.server, cfssl.Config{}).Revoke(t.Context(), leaf, nil, issuer.Superseded)
		checkError(t, err, f, f.server)
	}
}

func isCA(t *testing.T) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: value}
}

func checkFault(t *testing.T, ca issuer.Issuer, f fault, s *cfsslserver.Server) {
	t.Helper()
	if f.request == nil {
		f.request = issuertest.Named(t, "www.example.com")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	chain, err := ca.Issue(ctx, f.request, 0)
	if chain != nil {
		t.Errorf("%d certificates", len(chain))
	}
	checkError(t, err, f, s)
}

func checkError(t *testing.T, err error, f fault, s *cfsslserver.Server) {
	t.Helper()
	if err == nil {
		t.Fatal("there is no error")
	}
	t.Log(err)
	var p *issuer.Problem
	if !errors.As(err, &p) || p.Type != f.kind {
		t.Errorf("the problem is %+v, want type %s", p, f.kind)
	}
	if errors.Is(err, issuer.ErrRefused) != f.refused {
		t.Errorf("refused: %v, want %v", !f.refused, f.refused)
	}
	if !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), s.Address) {
		t.Errorf("it says nothing of %q and %s", f.says, s.Address)
	}
	if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), key) || strings.Contains(err.Error(), wrongKey) {
		t.Error("it has several lines, or a key in it")
	}
}
