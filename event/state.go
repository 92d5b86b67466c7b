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

// maxText bounds a failure's message, in bytes.
const maxText = 4096

// Reasons for a generation, in Record.Reason and Claim.Reason.
const (
	ReasonNew     = "new"
	ReasonRenewal = "renewal" // by the schedule
	ReasonRekey   = "rekey"   // because somebody asked
	ReasonRemoved = "removed"
	// ReasonCompromised: somebody who should not may know the private key.
	ReasonCompromised = "compromised"
	// ReasonGroupKey: the group has a new key.
	ReasonGroupKey = "group-key"
	// ReasonRollback: the log had lost a newer generation.
	ReasonRollback = "rollback"
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
	// Mark is set while the certificate waits to be made anew before it is due.
	Mark *Mark
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

// A Mark says that the next generation is due at once. The generation clears
// it.
type Mark struct {
	Reason string
	At     time.Time
}

// A Failure is the last failed attempt in a row of Attempts.
type Failure struct {
	Attempts uint64
	At       time.Time
	// Next is when the schedule tries again.
	Next time.Time
	// Message has at most 4096 bytes.
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
	stateMark tag = optional | iota
)

func (s *State) kind() Type  { return TypeState }
func (s *State) key() string { return StateKey(s.ID) }

func (s *State) fields(f *codec) {
	f.string(stateID, &s.ID, maxWord)
	f.message(stateSpec, &s.Spec)
	f.uint(stateEpoch, &s.Epoch)
	f.uint(stateGeneration, &s.Generation)
	f.bool(stateRemoved, &s.Removed)
	pointer(f, stateClaim, &s.Claim)
	pointer(f, stateFailure, &s.Failure)
	messages(f, stateRecord, &s.History, MaxHistory)
	f.bytes(stateCurrent, &s.Current)
	pointer(f, stateMark, &s.Mark)
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
	if s.Failure != nil && len(s.Failure.Message) > maxText {
		return fmt.Errorf("a failure's message of %d bytes: at most %d are kept", len(s.Failure.Message), maxText)
	}
	return s.Spec.check()
}

const (
	specGroup tag = iota + 1
	specName
	specIssuer
	specKeyType
	specLifetime
	specRenewBefore
	specCreated
)

func (s *Spec) fields(f *codec) {
	f.string(specGroup, &s.Group, maxWord)
	f.strings(specName, &s.Names, MaxNames, maxName)
	f.string(specIssuer, &s.Issuer, maxWord)
	f.string(specKeyType, &s.KeyType, maxWord)
	f.duration(specLifetime, &s.Lifetime)
	f.string(specRenewBefore, &s.RenewBefore, maxWord)
	f.time(specCreated, &s.Created)
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

func (c *Claim) fields(f *codec) {
	f.uint(claimGeneration, &c.Generation)
	f.string(claimOwner, &c.Owner, maxWord)
	f.string(claimBoot, &c.Boot, maxWord)
	f.string(claimReason, &c.Reason, maxWord)
	f.time(claimAt, &c.At)
}

const (
	markReason tag = iota + 1
	markAt
)

func (k *Mark) fields(f *codec) {
	f.string(markReason, &k.Reason, maxWord)
	f.time(markAt, &k.At)
}

const (
	failureAttempts tag = iota + 1
	failureAt
	failureNext
	failureMessage
)

func (x *Failure) fields(f *codec) {
	f.uint(failureAttempts, &x.Attempts)
	f.time(failureAt, &x.At)
	f.time(failureNext, &x.Next)
	f.string(failureMessage, &x.Message, maxText)
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

func (r *Record) fields(f *codec) {
	f.uint(recordEpoch, &r.Epoch)
	f.uint(recordGeneration, &r.Generation)
	f.time(recordAt, &r.At)
	f.keyID(recordManager, &r.Manager)
	f.string(recordReason, &r.Reason, maxWord)
	f.bytes(recordSerial, &r.Serial)
	f.time(recordNotAfter, &r.NotAfter)
}
