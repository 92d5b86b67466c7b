// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// MaxSize is the longest event, in bytes: what a bus takes.
const MaxSize = 256 << 10

// ErrMoved means that a correctly signed event stands where it was not put: it
// is another tenant's or another key's.
var ErrMoved = errors.New("event: signed for another place")

const (
	version   = 1
	signature = "keyturn event v1" // the context of the signature
	overhead  = 1 + 4 + seal.SignatureSize
	maxKey    = 200 // the longest key that a bus takes, in bytes
)

// A Type says what the body is. The numbers are on the wire.
type Type uint16

// The types.
const (
	TypeCertificate Type = iota + 1
	TypeRemoval
	TypeState
	TypeNames
	TypeConfig
	TypeIssuerState
	TypeGroup
	TypeLogInfo
	TypeBusInfo
	TypeManagerChain
	TypeManagerSet
	TypeJoinToken
	TypeJoinRequest
	TypeMember
	TypeReceipt
	TypeBeacon
	TypeChallenges
	TypeBudget
	TypeIssuerControl
	TypeCARecords
)

// An Event is an entry of the bus, verified and decoded.
type Event struct {
	Tenant string
	Key    string
	// Time is when the manager signed it, by its clock.
	Time time.Time
	// Signer is the manager that signed it. Sign sets it.
	Signer seal.KeyID
	// Body is one of the types of this package, by pointer, or nil where the
	// type is one that this version does not know.
	Body Body
}

// A Body is a pointer to one of the types that the package comment lists.
type Body interface {
	kind() Type
	// key is the only key under which this body may stand.
	key() string
	check() error
	message
}

// Key returns the only key under which a body may stand.
func Key(b Body) string { return b.key() }

// Fields of the payload.
const (
	tagType tag = iota + 1
	tagTenant
	tagKey
	tagTime
	tagNonce
	tagBody
)

// A payload is what is signed.
type payload struct {
	kind        uint64
	tenant, key string
	time        time.Time
	nonce, body []byte
}

func (p *payload) fields(f *codec) {
	f.uint(tagType, &p.kind)
	f.string(tagTenant, &p.tenant, maxWord)
	f.string(tagKey, &p.key, maxKey)
	f.time(tagTime, &p.time)
	f.bytes(tagNonce, &p.nonce)
	f.bytes(tagBody, &p.body)
}

// Sign encodes and signs an event of the tenant. The key follows from the body.
// Two events are never equal, whatever they say: each has 16 random bytes.
func Sign(k *seal.SigningKey, tenant string, at time.Time, body Body) ([]byte, error) {
	if err := CheckName(tenant); err != nil {
		return nil, fmt.Errorf("event: the tenant: %w", err)
	}
	if err := body.check(); err != nil {
		return nil, fmt.Errorf("event: signing %s: %w", body.key(), err)
	}
	encoded, err := encodeChecked(body)
	if err != nil { // once on the bus, it could not be read, nor what it says be changed
		return nil, fmt.Errorf("event: signing %s: %w", body.key(), err)
	}
	p := payload{
		kind: uint64(body.kind()), tenant: tenant, key: body.key(), time: at,
		nonce: make([]byte, 16), body: encoded,
	}
	_, _ = rand.Read(p.nonce) // never fails: see crypto/rand
	signed := encode(&p)
	if n := len(signed) + overhead; n > MaxSize {
		return nil, fmt.Errorf("event: %s has %d bytes, more than the %d that the bus takes", body.key(), n, MaxSize)
	}
	out := make([]byte, 0, len(signed)+overhead)
	out = append(out, version)
	out = binary.BigEndian.AppendUint32(out, uint32(len(signed)))
	out = append(out, signed...)
	return append(out, k.Sign(signature, signed)...), nil
}

// Resign returns an event with the signature of k in place of the one that it
// has, which the caller has verified: k vouches for it from now on. What was
// signed stays the same to the byte, its time and all that a newer version may
// have put into it.
func Resign(k *seal.SigningKey, data []byte) ([]byte, error) {
	signed, sig, err := split(data)
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), data[:len(data)-len(sig)]...)
	return append(out, k.Sign(signature, signed)...), nil
}

// Open verifies that one of the trusted managers signed data for this tenant
// and key, and decodes them. The errors are seal.ErrUnknownSigner,
// seal.ErrSignature, ErrMoved, ErrMalformed and ErrUnsupported. The event's
// byte slices alias data.
func Open(trusted []*seal.VerifyKey, tenant, key string, data []byte) (*Event, error) {
	payload, sig, err := split(data)
	if err != nil {
		return nil, err
	}
	signer, err := seal.Verify(trusted, signature, payload, sig)
	if err != nil {
		return nil, err
	}
	return decodeAt(tenant, key, payload, signer)
}

// Trusted decodes data whose signature was verified earlier and that have been
// kept since where nobody else could change them. It checks all but the
// signature and the key, which Event.Key tells.
func Trusted(tenant string, data []byte) (*Event, error) {
	payload, sig, err := split(data)
	if err != nil {
		return nil, err
	}
	e, err := decodePayload(payload)
	if err != nil {
		return nil, err
	}
	if e.Tenant != tenant {
		return nil, fmt.Errorf("%w: it is tenant %q's", ErrMoved, e.Tenant)
	}
	copy(e.Signer[:], sig[1:])
	return e, nil
}

// Same reports whether two events say the same of the same: they may differ in
// when, by whom and with what random bytes they were signed. Both must be
// events whose signatures were verified.
func Same(a, b []byte) bool {
	var p [2]payload
	for i, data := range [][]byte{a, b} {
		signed, _, err := split(data)
		if err != nil {
			return false
		}
		if err := decode(signed, &p[i]); err != nil {
			return false
		}
	}
	return p[0].kind == p[1].kind && p[0].tenant == p[1].tenant && p[0].key == p[1].key && bytes.Equal(p[0].body, p[1].body)
}

func decodeAt(tenant, key string, payload []byte, signer seal.KeyID) (*Event, error) {
	e, err := decodePayload(payload)
	if err != nil {
		return nil, err
	}
	if e.Tenant != tenant || e.Key != key {
		return nil, fmt.Errorf("%w: it is %q of tenant %q", ErrMoved, e.Key, e.Tenant)
	}
	e.Signer = signer
	return e, nil
}

func split(data []byte) (payload, sig []byte, err error) {
	switch {
	case len(data) < overhead || len(data) > MaxSize:
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	case data[0] != version:
		return nil, nil, fmt.Errorf("%w: version %d", ErrUnsupported, data[0])
	case uint64(binary.BigEndian.Uint32(data[1:])) != uint64(len(data)-overhead):
		return nil, nil, fmt.Errorf("%w: the lengths do not add up", ErrMalformed)
	}
	n := len(data) - seal.SignatureSize
	return data[5:n:n], data[n:], nil
}

func decodePayload(b []byte) (*Event, error) {
	var p payload
	if err := decode(b, &p); err != nil {
		return nil, err
	}
	e := &Event{Tenant: p.tenant, Key: p.key, Time: p.time}
	body := newBody(Type(p.kind))
	if body == nil {
		return e, nil
	}
	if err := decode(p.body, body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if body.key() != e.Key {
		return nil, fmt.Errorf("%w: the body is that of %q, the header says %q", ErrMalformed, body.key(), e.Key)
	}
	e.Body = body
	return e, nil
}

func newBody(t Type) Body {
	switch t {
	case TypeCertificate:
		return new(Certificate)
	case TypeRemoval:
		return new(Removal)
	case TypeState:
		return new(State)
	case TypeNames:
		return new(Names)
	case TypeConfig:
		return new(Config)
	case TypeIssuerState:
		return new(IssuerState)
	case TypeGroup:
		return new(Group)
	case TypeLogInfo:
		return new(LogInfo)
	case TypeBusInfo:
		return new(BusInfo)
	case TypeManagerChain:
		return new(ManagerChain)
	case TypeManagerSet:
		return new(ManagerSet)
	case TypeJoinToken:
		return new(JoinToken)
	case TypeJoinRequest:
		return new(JoinRequest)
	case TypeMember:
		return new(Member)
	case TypeReceipt:
		return new(Receipt)
	case TypeBeacon:
		return new(Beacon)
	case TypeChallenges:
		return new(Challenges)
	case TypeBudget:
		return new(Budget)
	case TypeIssuerControl:
		return new(IssuerControl)
	case TypeCARecords:
		return new(CARecords)
	}
	return nil
}
