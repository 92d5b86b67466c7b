// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// Limits of a receipt.
const (
	// MaxReceipt is how many certificates one page of a receipt tells of.
	MaxReceipt = 1000
	// MaxProofs is how many events a receipt holds as proofs.
	MaxProofs = 16
	// MaxPages is how many pages a receipt has at most.
	MaxPages = 1000
)

// Receipt is what a replica reports, signed by the member's own key, on the
// board. The newest of a member counts. One that has more than MaxReceipt
// certificates reports on several pages.
type Receipt struct {
	Group  string
	Member string
	// Page counts from 0, Pages is how many there are. What is not of a
	// certificate stands on page 0 alone.
	Page, Pages uint64
	// Program is the version of the program.
	Program string
	// Started is when the replica was opened.
	Started time.Time
	// Following says that everything on the bus was taken; Position is the place
	// reached, and Error why the bus is not followed.
	Following bool
	Position  string
	Error     string
	// Skew is how far the newest beacon's time was ahead of the host's clock, less
	// than zero if it was behind. Beacon is when that beacon was signed.
	Skew   time.Duration
	Beacon time.Time
	// Challenges is the place in the log of the group's Challenges that are being
	// answered, as bus.Position prints it; "" before there were any.
	Challenges string
	// Differs says that what is held is not what the managers say it should be.
	Differs bool
	// Healed counts how often following from the start has mended that.
	Healed uint64
	// Budget is when the first certificate ends that is served.
	Budget time.Time
	// Keys are the group's keys that are held.
	Keys []seal.KeyID
	// Certificates are sorted by id.
	Certificates []Received
	// Proofs are signed events that are held and newer than what stands on the
	// bus: it went back.
	Proofs [][]byte
}

// Received is what a replica has of one managed certificate.
type Received struct {
	ID string
	// Version is the newest that was received and is held.
	Version
	// Removed says that it is the version of a removal.
	Removed bool
	// At is when it was received, and Served since when new handshakes get it;
	// zero while they do not.
	At, Served time.Time
	// Lag is the time from the manager's signature to At, by two clocks.
	Lag time.Duration
	// Error is why a newer version is not served; "" if there is none.
	Error string
}

const (
	receiptGroup tag = iota + 1
	receiptMember
	receiptPage
	receiptPages
	receiptProgram
	receiptStarted
	receiptFollowing
	receiptPosition
	receiptError
	receiptSkew
	receiptBeacon
	receiptDiffers
	receiptHealed
	receiptBudget
	receiptKey
	receiptCertificate
	receiptProof
	receiptChallenges tag = optional | iota
)

const (
	receivedID tag = iota + 1
	receivedEpoch
	receivedGeneration
	receivedRemoved
	receivedAt
	receivedServed
	receivedLag
	receivedError
)

func (r *Received) fields(f *codec) {
	f.string(receivedID, &r.ID, maxWord)
	f.uint(receivedEpoch, &r.Epoch)
	f.uint(receivedGeneration, &r.Generation)
	f.bool(receivedRemoved, &r.Removed)
	f.time(receivedAt, &r.At)
	f.time(receivedServed, &r.Served)
	f.signed(receivedLag, &r.Lag)
	f.string(receivedError, &r.Error, maxText)
}

func (r *Receipt) kind() Type  { return TypeReceipt }
func (r *Receipt) key() string { return ReceiptKey(r.Group, r.Member, r.Page) }

func (r *Receipt) fields(f *codec) {
	f.string(receiptGroup, &r.Group, maxWord)
	f.string(receiptMember, &r.Member, maxWord)
	f.uint(receiptPage, &r.Page)
	f.uint(receiptPages, &r.Pages)
	f.string(receiptProgram, &r.Program, maxWord)
	f.time(receiptStarted, &r.Started)
	f.bool(receiptFollowing, &r.Following)
	f.string(receiptPosition, &r.Position, maxURL)
	f.string(receiptError, &r.Error, maxText)
	f.signed(receiptSkew, &r.Skew)
	f.time(receiptBeacon, &r.Beacon)
	f.bool(receiptDiffers, &r.Differs)
	f.uint(receiptHealed, &r.Healed)
	f.time(receiptBudget, &r.Budget)
	f.keyIDs(receiptKey, &r.Keys, MaxKeys)
	messages(f, receiptCertificate, &r.Certificates, MaxReceipt)
	f.blobs(receiptProof, &r.Proofs, MaxProofs)
	f.string(receiptChallenges, &r.Challenges, maxURL)
}

func (r *Receipt) check() error {
	switch {
	case r.Pages == 0 || r.Pages > MaxPages || r.Page >= r.Pages:
		return fmt.Errorf("page %d of %d", r.Page, r.Pages)
	case len(r.Certificates) > MaxReceipt:
		return fmt.Errorf("%d certificates on a page: at most %d are allowed", len(r.Certificates), MaxReceipt)
	case len(r.Proofs) > MaxProofs:
		return fmt.Errorf("%d proofs: at most %d are allowed", len(r.Proofs), MaxProofs)
	}
	for i := range r.Certificates {
		if err := CheckID(r.Certificates[i].ID); err != nil {
			return err
		}
	}
	return checkMember(r.Group, r.Member)
}

// Beacon is what managers say about a group once a minute, on the board: what
// its replicas should have. A replica that has something else missed an entry,
// or the bus lost one.
type Beacon struct {
	Group string
	// Position is the place in the log that was reached, as bus.Position prints
	// it.
	Position string
	// Count is how many ids the digest is of, and Digest that of all of them:
	// see NewDigest.
	Count  uint64
	Digest []byte
	// Every is how often a beacon is to be expected: BeaconEvery, or the interval
	// of a timer where no manager runs all the time.
	Every time.Duration
}

const (
	beaconGroup tag = iota + 1
	beaconPosition
	beaconCount
	beaconDigest
	beaconEvery
)

// BeaconEvery is how often managers sign a beacon for each group.
const BeaconEvery = time.Minute

func (b *Beacon) kind() Type  { return TypeBeacon }
func (b *Beacon) key() string { return BeaconKey(b.Group) }

func (b *Beacon) fields(f *codec) {
	f.string(beaconGroup, &b.Group, maxWord)
	f.string(beaconPosition, &b.Position, maxURL)
	f.uint(beaconCount, &b.Count)
	f.bytes(beaconDigest, &b.Digest)
	f.duration(beaconEvery, &b.Every)
}

func (b *Beacon) check() error {
	if len(b.Digest) != sha256.Size {
		return fmt.Errorf("a digest of %d bytes", len(b.Digest))
	}
	return CheckName(b.Group)
}

// NewDigest returns the SHA-256 of all (id, epoch, generation), sorted by id,
// those of removals included.
func NewDigest(held map[string]Version) []byte {
	h := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(held)) {
		var n [2 * 8]byte
		binary.BigEndian.PutUint64(n[:], held[id].Epoch)
		binary.BigEndian.PutUint64(n[8:], held[id].Generation)
		h.Write([]byte(id)) // always 11 characters
		h.Write(n[:])
	}
	return h.Sum(nil)
}
