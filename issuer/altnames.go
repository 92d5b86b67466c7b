// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/printable"
)

// subjectAltName is the extension's object identifier (RFC 5280 section
// 4.2.1.6).
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Tags of a GeneralName (RFC 5280 section 4.2.1.6).
const (
	tagDNS = 2
	tagURI = 6
	tagIP  = 7
)

// An altName is one GeneralName in a form that can be compared. It is taken
// from the encoding: what crypto/x509 does not parse, such as an otherName,
// must not slip in unseen.
type altName struct {
	tag   int
	value string
}

func (n altName) String() string {
	switch n.tag {
	case tagIP:
		return net.IP(n.value).String()
	case tagDNS, tagURI:
		return printable.Start(n.value, maxName)
	}
	return "GeneralName[" + strconv.Itoa(n.tag) + "] " + quoted(n.value)
}

func checkNames(leaf *x509.Certificate, csr *x509.CertificateRequest) error {
	want, err := altNames(csr.Extensions)
	if err != nil {
		return fmt.Errorf("checking a certificate chain: the request: %w", err)
	}
	got, err := altNames(leaf.Extensions)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongNames, err)
	}
	if len(want) == 0 {
		return fmt.Errorf("%w: none were requested", ErrWrongNames)
	}
	missing, additional := without(want, got), without(got, want)
	var what []string
	if missing != "" {
		what = append(what, "missing: "+missing)
	}
	if additional != "" {
		what = append(what, "not asked for: "+additional)
	}
	if len(what) > 0 {
		return fmt.Errorf("%w: %s", ErrWrongNames, strings.Join(what, "; "))
	}
	return nil
}

func altNames(extensions []pkix.Extension) (map[altName]bool, error) {
	names := make(map[altName]bool)
	for _, e := range extensions {
		if !e.Id.Equal(subjectAltName) {
			continue
		}
		var raw []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &raw); err != nil {
			return nil, fmt.Errorf("the subject alternative names do not parse: %w", err)
		} else if len(rest) > 0 {
			return nil, errors.New("the subject alternative names have data after them")
		}
		for _, r := range raw {
			if r.Class != asn1.ClassContextSpecific {
				return nil, fmt.Errorf("a subject alternative name has the class %d", r.Class)
			}
			value := string(r.Bytes)
			if r.Tag == tagDNS {
				value = strings.ToLower(value) // RFC 4343: case does not count
			}
			names[altName{r.Tag, value}] = true
		}
	}
	return names, nil
}

// without lists the names of a that b lacks, ten at most.
func without(a, b map[altName]bool) string {
	var lacking []string
	for n := range maps.Keys(a) {
		if !b[n] {
			lacking = append(lacking, n.String())
		}
	}
	slices.Sort(lacking)
	const most = 10
	if n := len(lacking) - most; n > 0 {
		lacking = append(lacking[:most], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(lacking, ", ")
}

// maxName is how much of a name an error has, in bytes: RFC 1035 section 2.3.4, as
// text.
const maxName = 253

// quoted keeps what a CA sent from writing its own lines into a log.
func quoted(s string) string {
	if len(s) > maxName {
		s = s[:maxName] + "..."
	}
	return strconv.Quote(s)
}
