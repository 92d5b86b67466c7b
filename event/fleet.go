// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// Limits of a fleet.
const (
	// MaxKeys is how many keys of a kind can be of use at once: a group's,
	// the managers'.
	MaxKeys = 16
	// maxURLs bounds the addresses of a bus.
	maxURLs = 16
	// maxURL and maxGrant bound an address and a bus's credentials, in bytes.
	maxURL   = 1024
	maxGrant = 8192
)

// BusInfo says how to reach the bus from other hosts, and holds what makes
// credentials for it.
type BusInfo struct {
	// URLs are where the bus is, the preferred one first.
	URLs []string
	// Roots are the CA certificates (DER) that the bus is known by; none where
	// those of the system are meant.
	Roots [][]byte
	// Sealed is the secret that signs credentials, sealed to the managers; empty
	// where an engine makes its own, as AWS does.
	Sealed []byte
}

const (
	busURL tag = iota + 1
	busRoot
	busSealed
)

func (b *BusInfo) kind() Type  { return TypeBusInfo }
func (b *BusInfo) key() string { return BusInfoKey }

func (b *BusInfo) fields(f *codec) {
	f.strings(busURL, &b.URLs, maxURLs, maxURL)
	f.blobs(busRoot, &b.Roots, MaxChain)
	f.bytes(busSealed, &b.Sealed)
}

func (b *BusInfo) check() error {
	if len(b.URLs) == 0 || len(b.URLs) > maxURLs {
		return fmt.Errorf("%d addresses of the bus: 1 to %d are allowed", len(b.URLs), maxURLs)
	}
	return nil
}

// Seal seals the secret that signs credentials to the managers.
func (b *BusInfo) Seal(tenant string, to *seal.PublicKey, secret []byte) (err error) {
	b.Sealed, err = to.Seal(associated(b.kind(), tenant, b.key(), func(*codec) {}), secret)
	return err
}

// Open returns the secret that signs credentials.
func (b *BusInfo) Open(tenant string, keys []*seal.PrivateKey) ([]byte, error) {
	return seal.Open(keys, associated(b.kind(), tenant, b.key(), func(*codec) {}), b.Sealed)
}

// JoinToken is what managers keep of a join token: nothing that lets anybody
// join. It is used up by one append.
type JoinToken struct {
	// ID is the token's, and that of the member who joins by it.
	ID    string
	Group string
	// Key checks the signature of the request: the public half of the token's
	// secret.
	Key              []byte
	Created, Expires time.Time
	// Request is the SHA-256 of the request that used the token up; empty before.
	Request []byte
	Used    time.Time
}

const (
	tokenID tag = iota + 1
	tokenGroup
	tokenKey
	tokenCreated
	tokenExpires
	tokenRequest
	tokenUsed
)

func (j *JoinToken) kind() Type  { return TypeJoinToken }
func (j *JoinToken) key() string { return TokenKey(j.ID) }

func (j *JoinToken) fields(f *codec) {
	f.string(tokenID, &j.ID, maxWord)
	f.string(tokenGroup, &j.Group, maxWord)
	f.bytes(tokenKey, &j.Key)
	f.time(tokenCreated, &j.Created)
	f.time(tokenExpires, &j.Expires)
	f.bytes(tokenRequest, &j.Request)
	f.time(tokenUsed, &j.Used)
}

func (j *JoinToken) check() error {
	if _, err := seal.NewVerifyKey(j.Key); err != nil {
		return err
	}
	return checkMember(j.Group, j.ID)
}

func checkMember(group, id string) error {
	if err := CheckName(group); err != nil {
		return fmt.Errorf("the group: %w", err)
	}
	return CheckID(id)
}

// JoinRequest asks to become a member. It is signed by the token's key, not by
// a manager.
type JoinRequest struct {
	ID    string
	Group string
	// Name is the host's, for people. It is not unique.
	Name string
	// SealKey is a seal.PublicKey and SignKey a seal.VerifyKey of the host.
	SealKey, SignKey []byte
	// User is the public half of the key by which the host logs in to the bus; ""
	// where the engine knows none.
	User string
}

const (
	memberID tag = iota + 1
	memberGroup
	memberName
	memberSealKey
	memberSignKey
	memberUser
	memberGrant
	memberJoined
	memberRevoked
	memberKey
	memberKeyID
)

func (j *JoinRequest) kind() Type  { return TypeJoinRequest }
func (j *JoinRequest) key() string { return JoinKey(j.ID) }

func (j *JoinRequest) fields(f *codec) {
	f.string(memberID, &j.ID, maxWord)
	f.string(memberGroup, &j.Group, maxWord)
	f.string(memberName, &j.Name, maxWord)
	f.bytes(memberSealKey, &j.SealKey)
	f.bytes(memberSignKey, &j.SignKey)
	f.string(memberUser, &j.User, maxURL)
}

func (j *JoinRequest) check() error { return j.checkKeys() }

func (j *JoinRequest) checkKeys() error {
	if err := CheckHost(j.Name); err != nil {
		return err
	}
	if _, err := seal.NewPublicKey(j.SealKey); err != nil {
		return err
	}
	if _, err := seal.NewVerifyKey(j.SignKey); err != nil {
		return err
	}
	return checkMember(j.Group, j.ID)
}

// Member is a host that is, or was, one of a group's replicas.
type Member struct {
	JoinRequest
	// Grant is what logs the host in to the bus, together with the secret half of
	// User: a NATS user's JWT. "" where the engine knows none.
	Grant string
	// Joined is when a manager took the request, and Revoked when one took the
	// member's rights away, zero if none did.
	Joined, Revoked time.Time
	// Keys are the group's private keys that are of use, each sealed to SealKey,
	// the newest first. It is empty until a holder of them grants it.
	Keys [][]byte
	// KeyIDs are the ids of Keys, in the same order, so that who cannot open them
	// knows which they are.
	KeyIDs []seal.KeyID
}

func (m *Member) kind() Type  { return TypeMember }
func (m *Member) key() string { return MemberKey(m.Group, m.ID) }

func (m *Member) fields(f *codec) {
	m.JoinRequest.fields(f)
	f.string(memberGrant, &m.Grant, maxGrant)
	f.time(memberJoined, &m.Joined)
	f.time(memberRevoked, &m.Revoked)
	f.blobs(memberKey, &m.Keys, MaxKeys)
	f.keyIDs(memberKeyID, &m.KeyIDs, MaxKeys)
}

func (m *Member) check() error {
	if len(m.Keys) > MaxKeys {
		return fmt.Errorf("%d keys of a group: at most %d are allowed", len(m.Keys), MaxKeys)
	}
	if len(m.Keys) != len(m.KeyIDs) {
		return fmt.Errorf("%d keys of a group with %d ids", len(m.Keys), len(m.KeyIDs))
	}
	return m.checkKeys()
}

// Associated is the associated data that each of Keys is bound to: this member,
// with this key of its own.
func (m *Member) Associated(tenant string) []byte {
	return associated(m.kind(), tenant, m.key(), func(f *codec) { f.bytes(memberSealKey, &m.SealKey) })
}

// Seal makes keys what the member is granted, the newest first.
func (m *Member) Seal(tenant string, keys []*seal.PrivateKey) error {
	to, err := seal.NewPublicKey(m.SealKey)
	if err != nil {
		return err
	}
	m.Keys, m.KeyIDs = nil, nil
	for _, k := range keys {
		sealed, err := k.SealTo(to, m.Associated(tenant))
		if err != nil {
			return err
		}
		m.Keys, m.KeyIDs = append(m.Keys, sealed), append(m.KeyIDs, k.Public().ID())
	}
	return nil
}

// Open returns the group's private keys, opened with the member's own.
func (m *Member) Open(tenant string, own []*seal.PrivateKey) ([]*seal.PrivateKey, error) {
	var keys []*seal.PrivateKey
	for _, sealed := range m.Keys {
		k, err := seal.OpenPrivateKey(own, m.Associated(tenant), sealed)
		if err != nil {
			return nil, fmt.Errorf("a key of group %q: %w", m.Group, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// CheckHost returns an error unless s can name a host: 1 to 63 printable ASCII
// characters without space.
func CheckHost(s string) error {
	if s == "" || len(s) > maxWord {
		return fmt.Errorf("a host's name has 1 to %d characters", maxWord)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return errors.New("a host's name has printable ASCII characters only")
		}
	}
	return nil
}
