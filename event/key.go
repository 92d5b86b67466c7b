// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
)

// Managers is the name of the group to which the managers' own secrets are
// sealed. It is not a group that certificates can belong to.
const Managers = "_managers"

// Keys of the entries that exist once.
const (
	ConfigKey   = "conf/shared"
	LogInfoKey  = "conf/log"
	BusInfoKey  = "conf/bus"
	ManagersKey = "conf/managers"

	managerSetKey = "conf/managers/set" // inside ManagersKey's entry, never on the bus
)

// Scopes that managers follow.
const (
	StateScope   = "state"
	GroupsScope  = "conf/group"   // the groups' public keys
	ControlScope = "conf/control" // what operators say of issuers
	BudgetScope  = "budget"       // what was asked of issuers
)

// Scopes of which single keys are read.
const (
	NamesScope     = "names"
	ChallengeScope = "challenge"
)

// NewID makes the id of a managed certificate: 8 random bytes as 11 base64url
// characters (RFC 4648 section 5, without padding), never starting with "-",
// which a command line would take for a flag.
func NewID() string {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails: see crypto/rand
		if id := base64.RawURLEncoding.EncodeToString(b[:]); id[0] != '-' {
			return id
		}
	}
}

// CheckID returns an error unless id has the form of NewID's.
func CheckID(id string) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(b) != 8 || len(id) != 11 || id[0] == '-' {
		return fmt.Errorf("%q is not the id of a managed certificate: 11 characters of A-Z a-z 0-9 _ -", id)
	}
	return nil
}

var name = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// CheckName returns an error unless s can name a tenant, a group or an issuer:
// [a-z0-9-]{1,63}.
func CheckName(s string) error {
	if !name.MatchString(s) {
		return fmt.Errorf("%q is not a name: 1 to 63 of a-z 0-9 -", s)
	}
	return nil
}

// StateKey is the key of what managers know of a managed certificate.
func StateKey(id string) string { return "state/" + id }

// GroupScope is the scope that a group's replicas follow.
func GroupScope(group string) string { return "group/" + group }

// CertificateKey is the key of a managed certificate's copy for its group.
func CertificateKey(group, id string) string { return GroupScope(group) + "/" + id }

// IssuerKey is the key of what a named issuer keeps.
func IssuerKey(name string) string { return "conf/issuer/" + name }

// ControlKey is the key of what operators say of a named issuer.
func ControlKey(issuer string) string { return ControlScope + "/" + issuer }

// CARecordsKey is the key of a shard of what a named built-in CA remembers of
// certificates.
func CARecordsKey(issuer, shard string) string { return "conf/ca/" + issuer + "/" + shard }

// BudgetKey is the key of a shard of what was asked of a named issuer.
func BudgetKey(issuer, shard string) string { return BudgetScope + "/" + issuer + "/" + shard }

// ChallengesKey is the key of what a group's replicas answer CAs. It is a scope
// of its own that they follow.
func ChallengesKey(group string) string { return ChallengeScope + "/" + group }

// GroupKey is the key of a group's public key.
func GroupKey(group string) string { return GroupsScope + "/" + group }

// Scopes of the log that those who look after joins follow.
const (
	JoinScope   = "join"
	TokenScope  = "token"
	MemberScope = "member"
)

// TokenKey is the key of a join token.
func TokenKey(id string) string { return TokenScope + "/" + id }

// JoinKey is the key of a request to join.
func JoinKey(id string) string { return JoinScope + "/" + id }

// MemberKey is the key of a member.
func MemberKey(group, id string) string { return MemberScope + "/" + group + "/" + id }

// Scopes of the board.
const (
	BeaconScope  = "beacon"
	ReceiptScope = "receipt"
)

// BeaconKey is the key of a group's beacon.
func BeaconKey(group string) string { return BeaconScope + "/" + group }

// ReceiptKey is the key of a page of a member's receipt.
func ReceiptKey(group, member string, page uint64) string {
	return fmt.Sprintf("%s/%s/%s/%d", ReceiptScope, group, member, page)
}

// NamesKey is the key under which a set of names is claimed in a group: the
// first 16 bytes of a SHA-256, in hexadecimal. The order of names does not
// matter.
func NamesKey(group string, names []string) string {
	h := sha256.New()
	for _, s := range append([]string{group}, slices.Sorted(slices.Values(names))...) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return NamesScope + "/" + hex.EncodeToString(h.Sum(nil)[:16])
}
