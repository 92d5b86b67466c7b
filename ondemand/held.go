// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
)

// A held is a certificate that is served. It does not change.
type held struct {
	cert           tls.Certificate
	from, until    time.Time // in which the whole chain is valid
	made           time.Time // since when it is of use
	due            time.Time // when it is to be renewed
	server, client bool      // whom it is for
}

// newHeld is of a checked chain. made is when it was issued, or zero if that is not
// known.
func newHeld(cert tls.Certificate, made time.Time, before time.Duration) (*held, error) {
	h := &held{cert: cert}
	for i, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			h.cert.Leaf, h.from, h.until = c, c.NotBefore, c.NotAfter
			continue
		}
		if bytes.Equal(c.RawIssuer, c.RawSubject) {
			continue // clients use their own copy of a root
		}
		h.from, h.until = latest(h.from, c.NotBefore), earliest(h.until, c.NotAfter)
	}
	for _, u := range h.cert.Leaf.ExtKeyUsage {
		h.server = h.server || u == x509.ExtKeyUsageServerAuth
		h.client = h.client || u == x509.ExtKeyUsageClientAuth
	}
	h.made = latest(made, h.from)
	seed := sha256.Sum256(h.cert.Leaf.Raw)
	life := schedule.Certificate{From: h.made, End: h.until, Seed: string(seed[:])}
	if before == 0 {
		before = life.Life() / 3
	}
	h.due = life.Due(before)
	return h, nil
}

// valid reports whether clients accept it now, as far as time goes.
func (h *held) valid(now time.Time) bool {
	return h != nil && !now.Before(h.from) && !now.After(h.until)
}

// same reports whether both are the same certificate.
func (h *held) same(other *held) bool {
	return other != nil && bytes.Equal(h.cert.Leaf.Raw, other.cert.Leaf.Raw)
}

func (h *held) life() schedule.Certificate {
	return schedule.Certificate{From: h.made, End: h.until}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
