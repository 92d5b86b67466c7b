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
	// ReasonImported: it was brought along, not issued here.
	ReasonImported = "imported"
	// ReasonRestored: the log had lost it, and a replica held it still.
	ReasonRestored = "restored"
	// ReasonCA: the CA asked for it (RFC 9773), before the schedule would have.
	ReasonCA = "ca"
	// ReasonChanged: another issuer or profile was chosen for it.
	ReasonChanged = "changed"
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
	// Order is set while one is under way for the next generation, from before it
	// can become a certificate until that is published, or it has failed for good.
	Order *Order
	// Renewal is what the newest generation's CA says of when to renew it; nil if
	// it was not asked, or says nothing.
	Renewal *Renewal
	// Hold is set while the budget for the next generation is used up.
	Hold *Hold
	// Pause is set while nobody renews it.
	Pause *Pause
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
	// Issuer is a name in the shared configuration, and Fallbacks are those that
	// stand in for it, in this order, after failures.
	Issuer    string
	Fallbacks []string
	// Challenge is how control of the names is proven to an ACME CA: "http-01",
	// "tls-alpn-01" or "dns-01"; "" is the issuer's default.
	Challenge string
	// Profile is the ACME profile that is asked for; "" is the issuer's default.
	Profile string
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
	// Issuer is the one that was asked; "" if none was.
	Issuer string
	// Order is the address of the order that failed; "" if there was none.
	Order string
	// Problem is what the CA said; nil if it said nothing in that form.
	Problem *Problem
	// RetryAfter is until when the CA wants not to be asked; zero if it did not
	// say.
	RetryAfter time.Time
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
	// Issuer is who signed it: the spec's, or one that stood in; "" for a removal
	// and for what was brought along.
	Issuer string
	// Order is the address of its order; "" if there was none.
	Order string
	// Revoked is when it was revoked at its CA; zero if it was not.
	Revoked time.Time
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
	stateOrder
	stateRenewal
	stateHold
	statePause
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
	pointer(f, stateOrder, &s.Order)
	pointer(f, stateRenewal, &s.Renewal)
	pointer(f, stateHold, &s.Hold)
	pointer(f, statePause, &s.Pause)
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
	if s.Failure != nil && s.Failure.Problem != nil {
		if err := s.Failure.Problem.check(); err != nil {
			return err
		}
	}
	if s.Order != nil {
		if err := s.Order.check(); err != nil {
			return err
		}
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
	specFallback tag = optional | iota
	specChallenge
	specProfile
)

func (s *Spec) fields(f *codec) {
	f.string(specGroup, &s.Group, maxWord)
	f.strings(specName, &s.Names, MaxNames, maxName)
	f.string(specIssuer, &s.Issuer, maxWord)
	f.string(specKeyType, &s.KeyType, maxWord)
	f.duration(specLifetime, &s.Lifetime)
	f.string(specRenewBefore, &s.RenewBefore, maxWord)
	f.time(specCreated, &s.Created)
	f.strings(specFallback, &s.Fallbacks, MaxIssuers-1, maxWord)
	f.string(specChallenge, &s.Challenge, maxWord)
	f.string(specProfile, &s.Profile, maxWord)
}

func (s *Spec) check() error {
	if err := CheckName(s.Group); err != nil {
		return fmt.Errorf("the group: %w", err)
	}
	if err := CheckName(s.Issuer); err != nil {
		return fmt.Errorf("the issuer: %w", err)
	}
	if len(s.Fallbacks) >= MaxIssuers {
		return fmt.Errorf("%d issuers: at most %d are allowed", 1+len(s.Fallbacks), MaxIssuers)
	}
	for _, name := range s.Fallbacks {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("an issuer that stands in: %w", err)
		}
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
	failureIssuer tag = optional | iota
	failureOrder
	failureProblem
	failureRetryAfter
)

func (x *Failure) fields(f *codec) {
	f.uint(failureAttempts, &x.Attempts)
	f.time(failureAt, &x.At)
	f.time(failureNext, &x.Next)
	f.string(failureMessage, &x.Message, maxText)
	f.string(failureIssuer, &x.Issuer, maxWord)
	f.string(failureOrder, &x.Order, maxURL)
	pointer(f, failureProblem, &x.Problem)
	f.time(failureRetryAfter, &x.RetryAfter)
}

const (
	recordEpoch tag = iota + 1
	recordGeneration
	recordAt
	recordManager
	recordReason
	recordSerial
	recordNotAfter
	recordIssuer tag = optional | iota
	recordOrder
	recordRevoked
)

func (r *Record) fields(f *codec) {
	f.uint(recordEpoch, &r.Epoch)
	f.uint(recordGeneration, &r.Generation)
	f.time(recordAt, &r.At)
	f.keyID(recordManager, &r.Manager)
	f.string(recordReason, &r.Reason, maxWord)
	f.bytes(recordSerial, &r.Serial)
	f.time(recordNotAfter, &r.NotAfter)
	f.string(recordIssuer, &r.Issuer, maxWord)
	f.string(recordOrder, &r.Order, maxURL)
	f.time(recordRevoked, &r.Revoked)
}
