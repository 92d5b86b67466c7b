// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// MaxHistory is how many generations State.History keeps.
const MaxHistory = 100

// maxText bounds the free texts in a state, in bytes.
const maxText = 4096

// Reasons for a generation, in Record.Reason and Claim.Reason.
const (
	ReasonNew     = "new"
	ReasonRenewal = "renewal" // by the schedule
	ReasonRekey   = "rekey"   // because somebody asked
	ReasonRemoved = "removed"
)

// State is what managers know of one managed certificate. Appending it is the
// commit of everything that happens to the certificate.
type State struct {
	ID   string
	Spec Spec
	// Version is that of the newest certificate or of the removal; generation 0
	// before the first certificate.
	Version
	// Removed says that nothing renews it any more and replicas drop it.
	Removed bool
	// Claim is set while a manager obtains the next generation.
	Claim *Claim
	// Failure is set after a failed attempt and cleared by a success.
	Failure *Failure
	// History has the newest generation last, at most MaxHistory of them.
	History []Record
	// Current is the whole signed Certificate or Removal event, as it stands,
	// or will soon stand, under the group's key. Nil before the first.
	Current []byte
}

// Spec says what a managed certificate shall be.
type Spec struct {
	Group string
	// Names are normalised DNS names and IP addresses.
	Names []string
	// Issuer is a name in the shared configuration.
	Issuer string
	// KeyType is one of issuer.KeyTypes.
	KeyType string
	// Lifetime is what the issuer is asked for; 0 is the issuer's default.
	Lifetime time.Duration
	// RenewBefore overrides the renewal rule: "30d", "720h", "33%"; "" is the
	// rule.
	RenewBefore string
	Created     time.Time
}

// A Claim says that a manager obtains the next generation. It lapses when an
// observer has seen it unchanged for two minutes by its own monotonic clock.
type Claim struct {
	// Generation is the one that is being obtained.
	Generation uint64
	// Owner names the manager and Boot one run of it, so that it knows its own
	// claims from before a crash.
	Owner, Boot string
	Reason      string
	At          time.Time
}

// A Failure is the last failed attempt in a row of Attempts.
type Failure struct {
	Attempts uint64
	At       time.Time
	// Next is when the schedule tries again.
	Next    time.Time
	Message string
}

// A Record is one generation in the history.
type Record struct {
	Version
	At      time.Time
	Manager seal.KeyID
	Reason  string
	// Serial is the certificate's serial number, big-endian.
	Serial   []byte
	NotAfter time.Time
}

const (
	stateID tag = iota + 1
	stateSpec
	stateEpoch
	stateGeneration
	stateRemoved
	stateClaim
	stateFailure
	stateRecord
	stateCurrent
)

func (s *State) kind() Type  { return TypeState }
func (s *State) key() string { return StateKey(s.ID) }

func (s *State) encode(e *encoder) {
	e.string(stateID, s.ID)
	e.nested(stateSpec, s.Spec.encode)
	e.uint(stateEpoch, s.Epoch)
	e.uint(stateGeneration, s.Generation)
	if s.Removed {
		e.uint(stateRemoved, 1)
	}
	if s.Claim != nil {
		e.nested(stateClaim, s.Claim.encode)
	}
	if s.Failure != nil {
		e.nested(stateFailure, s.Failure.encode)
	}
	for i := range s.History {
		e.nested(stateRecord, s.History[i].encode)
	}
	e.bytes(stateCurrent, s.Current)
}

func (s *State) decode(f field) error {
	switch f.tag {
	case stateID:
		return f.string(&s.ID, 11)
	case stateSpec:
		return decode(f.value, s.Spec.decode)
	case stateEpoch:
		return f.uint(&s.Epoch)
	case stateGeneration:
		return f.uint(&s.Generation)
	case stateRemoved:
		s.Removed = true
		return nil
	case stateClaim:
		s.Claim = new(Claim)
		return decode(f.value, s.Claim.decode)
	case stateFailure:
		s.Failure = new(Failure)
		return decode(f.value, s.Failure.decode)
	case stateRecord:
		var r Record
		if err := decode(f.value, r.decode); err != nil {
			return err
		}
		return add(f, &s.History, MaxHistory, r)
	case stateCurrent:
		s.Current = f.value
		return nil
	}
	return errUnknown
}

func (s *State) check() error {
	if err := CheckID(s.ID); err != nil {
		return err
	}
	if len(s.History) > MaxHistory {
		return fmt.Errorf("%d generations of history: at most %d are kept", len(s.History), MaxHistory)
	}
	if (s.Generation == 0) != (len(s.Current) == 0) {
		return errors.New("a generation without its event, or an event without generation")
	}
	return s.Spec.check()
}

// Fields of a Spec; names of more than one use share their numbers across the
// nested lists.
const (
	specGroup tag = iota + 1
	specName
	specIssuer
	specKeyType
	specLifetime
	specRenewBefore
	specCreated
)

func (s *Spec) encode(e *encoder) {
	e.string(specGroup, s.Group)
	for _, n := range s.Names {
		e.field(specName, []byte(n))
	}
	e.string(specIssuer, s.Issuer)
	e.string(specKeyType, s.KeyType)
	e.uint(specLifetime, uint64(s.Lifetime))
	e.string(specRenewBefore, s.RenewBefore)
	e.time(specCreated, s.Created)
}

func (s *Spec) decode(f field) error {
	switch f.tag {
	case specGroup:
		return f.string(&s.Group, 63)
	case specName:
		var n string
		if err := f.string(&n, maxName); err != nil {
			return err
		}
		return add(f, &s.Names, MaxNames, n)
	case specIssuer:
		return f.string(&s.Issuer, 63)
	case specKeyType:
		return f.string(&s.KeyType, 63)
	case specLifetime:
		return f.duration(&s.Lifetime)
	case specRenewBefore:
		return f.string(&s.RenewBefore, 63)
	case specCreated:
		return f.time(&s.Created)
	}
	return errUnknown
}

func (s *Spec) check() error {
	if err := CheckName(s.Group); err != nil {
		return fmt.Errorf("the group: %w", err)
	}
	if err := CheckName(s.Issuer); err != nil {
		return fmt.Errorf("the issuer: %w", err)
	}
	if len(s.Names) == 0 || len(s.Names) > MaxNames {
		return fmt.Errorf("%d names: 1 to %d are allowed", len(s.Names), MaxNames)
	}
	if s.Lifetime < 0 {
		return errors.New("a negative lifetime")
	}
	return nil
}

const (
	claimGeneration tag = iota + 1
	claimOwner
	claimBoot
	claimReason
	claimAt
)

func (c *Claim) encode(e *encoder) {
	e.uint(claimGeneration, c.Generation)
	e.string(claimOwner, c.Owner)
	e.string(claimBoot, c.Boot)
	e.string(claimReason, c.Reason)
	e.time(claimAt, c.At)
}

func (c *Claim) decode(f field) error {
	switch f.tag {
	case claimGeneration:
		return f.uint(&c.Generation)
	case claimOwner:
		return f.string(&c.Owner, 63)
	case claimBoot:
		return f.string(&c.Boot, 63)
	case claimReason:
		return f.string(&c.Reason, 63)
	case claimAt:
		return f.time(&c.At)
	}
	return errUnknown
}

const (
	failureAttempts tag = iota + 1
	failureAt
	failureNext
	failureMessage
)

func (f *Failure) encode(e *encoder) {
	e.uint(failureAttempts, f.Attempts)
	e.time(failureAt, f.At)
	e.time(failureNext, f.Next)
	e.string(failureMessage, f.Message[:min(len(f.Message), maxText)])
}

func (f *Failure) decode(d field) error {
	switch d.tag {
	case failureAttempts:
		return d.uint(&f.Attempts)
	case failureAt:
		return d.time(&f.At)
	case failureNext:
		return d.time(&f.Next)
	case failureMessage:
		return d.string(&f.Message, maxText)
	}
	return errUnknown
}

const (
	recordEpoch tag = iota + 1
	recordGeneration
	recordAt
	recordManager
	recordReason
	recordSerial
	recordNotAfter
)

func (r *Record) encode(e *encoder) {
	e.uint(recordEpoch, r.Epoch)
	e.uint(recordGeneration, r.Generation)
	e.time(recordAt, r.At)
	e.bytes(recordManager, r.Manager[:])
	e.string(recordReason, r.Reason)
	e.bytes(recordSerial, r.Serial)
	e.time(recordNotAfter, r.NotAfter)
}

func (r *Record) decode(f field) error {
	switch f.tag {
	case recordEpoch:
		return f.uint(&r.Epoch)
	case recordGeneration:
		return f.uint(&r.Generation)
	case recordAt:
		return f.time(&r.At)
	case recordManager:
		if len(f.value) != len(r.Manager) {
			return fmt.Errorf("%w: a key id of %d bytes", ErrMalformed, len(f.value))
		}
		copy(r.Manager[:], f.value)
		return nil
	case recordReason:
		return f.string(&r.Reason, 63)
	case recordSerial:
		if len(f.value) > 20 { // RFC 5280 section 4.1.2.2
			return fmt.Errorf("%w: a serial number of %d bytes", ErrMalformed, len(f.value))
		}
		r.Serial = f.value
		return nil
	case recordNotAfter:
		return f.time(&r.NotAfter)
	}
	return errUnknown
}
