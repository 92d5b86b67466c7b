// SPDX-License-Identifier: Apache-2.0

// Package event defines the entries that travel on the bus, and their
// encoding.
//
// An entry is an [Event]: a header and a body, signed, most by a manager. [Sign]
// makes one, [Open] verifies and decodes one. The signature covers the bytes as
// they are transmitted, which are never encoded again, and with them the
// tenant and the key under which the entry stands: an entry copied to another
// place, another tenant or another bus is refused there.
//
// The bodies:
//
//	Certificate  group/<group>/<id>   one generation for replicas: chain, and the
//	                                  private key sealed to the group
//	Removal      group/<group>/<id>   the end of a managed certificate
//	State        state/<id>           what managers know of a managed certificate
//	Names        names/<hash>         who manages this set of names
//	Config       conf/shared          the shared configuration, sealed to managers
//	IssuerState  conf/issuer/<name>   what an issuer keeps, sealed to managers
//	CARecords    conf/ca/<name>/<shard> what the built-in CA signed by hand and revoked
//	IssuerControl conf/control/<name>  what operators say of an issuer
//	Budget       budget/<name>/<shard> what was asked of an issuer, for its rate limits
//	Challenges   challenge/<group>    what the group's replicas answer ACME CAs
//	Group        conf/group/<name>    a group's public key
//	LogInfo      conf/log             the log's epoch
//	BusInfo      conf/bus             how to reach the bus, and what signs its credentials
//	ManagerChain conf/managers        who may sign: a chain of ManagerSet
//	JoinToken    token/<id>           a join token, without its secret
//	JoinRequest  join/<id>            a host that wants to join, signed by the token
//	Member       member/<group>/<id>  a host that joined: its rights, and the group's
//	                                  keys sealed to it
//
// And on the board:
//
//	Beacon       beacon/<group>                 what the group's replicas should have
//	Receipt      receipt/<group>/<id>/<page>    what a replica has, signed by the member
//
// # Encoding
//
// An event is a version byte (1), the payload's length (4 bytes, big-endian),
// the payload, and the signature block of package seal. The payload is a list
// of fields: tag (2 bytes), length (4 bytes), value. A reader skips the fields
// that it does not know if their tag has the highest bit set, and refuses the
// event otherwise; a type that it does not know decodes with a nil Body. No
// length is believed before it is compared with the bytes that are there, and
// no decoded list grows past its limit.
package event
