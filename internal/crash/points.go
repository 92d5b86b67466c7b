// SPDX-License-Identifier: Apache-2.0

package crash

// The points between a manager's claim on a generation and its publication, in
// their order.
const (
	Claimed    = "manager/claimed"   // the claim is on the bus
	Ordered    = "manager/ordered"   // the order is on the bus; it cannot have become a certificate
	Validated  = "acme/validated"    // the CA has seen the proofs, and is not yet asked to sign
	Finalised  = "acme/finalised"    // it was asked to, and has answered
	Downloaded = "acme/downloaded"   // the chain is here
	Issued     = "manager/issued"    // it was checked, and the key is sealed to the group
	Committed  = "manager/committed" // the generation is on the bus, for managers
	Published  = "manager/published" // and for replicas
)

// Renewal returns them all, in their order.
func Renewal() []string {
	return []string{Claimed, Ordered, Validated, Finalised, Downloaded, Issued, Committed, Published}
}
