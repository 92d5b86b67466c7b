// SPDX-License-Identifier: Apache-2.0

package crash

// Points of a manager. What a name says has just happened, and nothing after it.
const (
	// Of a certificate's first generation.
	NamesClaimed = "manager/names-claimed" // the names have a holder, which has no state
	Begun        = "manager/begun"         // the first state is on the bus
	Imported     = "manager/imported"      // what was brought along is committed

	// Of each generation, in their order.
	Drawn      = "manager/drawn"       // its place in the issuer's budget is taken
	Claimed    = "manager/claimed"     // the claim is on the bus
	Drafted    = "manager/drafted"     // key and request are made
	Ordered    = "manager/ordered"     // the order is on the bus; it cannot have become a certificate
	Answered   = "manager/answered"    // the issuer has answered
	Issued     = "manager/issued"      // the chain was checked, and the key is sealed to the group
	Committed  = "manager/committed"   // the generation is on the bus, for managers
	CopiedOver = "manager/copied-over" // and for replicas, in place of the one that was known
	Copying    = "manager/copying"     // what stands for replicas is older than what does for managers
	Copied     = "manager/copied"      // it was replaced
	Published  = "manager/published"   // the generation is on the bus for replicas

	// Of attempts that come to nothing.
	FailureNoted  = "manager/failure-noted"
	GivenBack     = "manager/given-back"
	HoldNoted     = "manager/hold-noted"
	BudgetWritten = "manager/budget-written"

	// Of what is done to certificates besides.
	Removed          = "manager/removed" // for managers
	RemovalPublished = "manager/removal-published"
	NamesReleased    = "manager/names-released"
	Marked           = "manager/marked"
	Voided           = "manager/voided" // marked, whatever is under way
	Changed          = "manager/changed"
	Paused           = "manager/paused"
	IssuerPaused     = "manager/issuer-paused"
	RevokedAtCA      = "manager/revoked-at-ca"
	RevocationNoted  = "manager/revocation-noted"

	// Of groups, their keys, and their members.
	GroupMade      = "manager/group-made"
	GroupRemoved   = "manager/group-removed"
	KeyGranted     = "manager/key-granted"    // to one member
	KeyTurned      = "manager/key-turned"     // the group has the new key
	SealedAnew     = "manager/sealed-anew"    // one certificate is
	KeyRetired     = "manager/key-retired"    // nothing needs the former key
	KeyTakenBack   = "manager/key-taken-back" // from one member
	TokenMade      = "manager/token-made"
	TokenUsed      = "manager/token-used" // and who has used it is no member
	Admitted       = "manager/admitted"
	MemberRevoked  = "manager/member-revoked"
	RevocationTold = "manager/revocation-told" // to the bus

	// Of managers, issuers, and the log.
	ManagersListed = "manager/managers-listed"
	Vouched        = "manager/vouched"         // for one entry of who is left out
	VouchedForAll  = "manager/vouched-for-all" // and the list has him still
	IssuerMade     = "manager/issuer-made"
	Enrolled       = "manager/enrolled" // the CA knows the account, and the bus does not know that
	RolloverBegun  = "manager/rollover-begun"
	SignedByHand   = "manager/signed-by-hand" // and not written down
	CARecorded     = "manager/ca-recorded"
	ConfigWritten  = "manager/config-written"
	EpochWritten   = "manager/epoch-written"
	BusTold        = "manager/bus-told"
	BeaconSigned   = "manager/beacon-signed"
)

// Points of whoever asks an ACME CA, and of the server that keeps what it gets.
const (
	Registered = "acme/registered" // the account is made
	RolledOver = "acme/rolled-over"
	OrderBegun = "acme/order-begun" // nobody but the CA knows of it
	Presented  = "acme/presented"   // the proof is there, and the CA does not look
	Initiated  = "acme/initiated"   // it does
	Validated  = "acme/validated"   // it has seen the proofs, and is not yet asked to sign
	Finalised  = "acme/finalised"   // it was asked to, and has answered
	Downloaded = "acme/downloaded"  // the chain is here

	ServerOrdered = "server/ordered"
	ServerKept    = "server/kept"
)

// Points of a replica.
const (
	Served       = "replica/served" // a certificate is, and the snapshot has it not
	Dropped      = "replica/dropped"
	Noted        = "replica/noted" // the snapshot has it
	CaughtUp     = "replica/caught-up"
	Compacted    = "replica/compacted" // the new file stands beside the old ones
	Rekeyed      = "replica/rekeyed"   // what only a former key opens is removed
	KeysTaken    = "replica/keys-taken"
	KeysKept     = "replica/keys-kept"
	KeysDropped  = "replica/keys-dropped"
	ManagersKept = "replica/managers-kept" // their chain is, and not yet their keys
	Reporting    = "replica/reporting"
	Asked        = "replica/asked"       // to join
	AnswerKept   = "replica/answer-kept" // what a manager has answered
	Joined       = "replica/joined"
)

// Code returns the points that the code passes.
func Code() []string {
	return []string{
		NamesClaimed, Begun, Imported,
		Drawn, Claimed, Drafted, Ordered, Answered, Issued, Committed, CopiedOver, Copying, Copied, Published,
		FailureNoted, GivenBack, HoldNoted, BudgetWritten,
		Removed, RemovalPublished, NamesReleased, Marked, Voided, Changed, Paused, IssuerPaused, RevokedAtCA, RevocationNoted,
		GroupMade, GroupRemoved, KeyGranted, KeyTurned, SealedAnew, KeyRetired, KeyTakenBack, TokenMade, TokenUsed, Admitted, MemberRevoked, RevocationTold,
		ManagersListed, Vouched, VouchedForAll, IssuerMade, Enrolled, RolloverBegun, SignedByHand, CARecorded, ConfigWritten, EpochWritten, BusTold, BeaconSigned,
		Registered, RolledOver, OrderBegun, Presented, Initiated, Validated, Finalised, Downloaded, ServerOrdered, ServerKept,
		Served, Dropped, Noted, CaughtUp, Compacted, Rekeyed, KeysTaken, KeysKept, KeysDropped, ManagersKept, Reporting, Asked, AnswerKept, Joined,
	}
}
