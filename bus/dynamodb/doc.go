// SPDX-License-Identifier: Apache-2.0

// Package dynamodb is the bus over AWS DynamoDB: one table for any number of
// tenants, and no server to run.
//
// [Init] makes the table, once. [Connect], or bus.OpenDir with a URL of the form
// dynamodb://TABLE, gives a [Log]; neither asks anybody, so that a program starts,
// and serves what it has, while the table cannot be reached. A manager calls
// [Log.Create] once. Credentials, region and the rest are those of the AWS SDK:
// its AWS_* variables, its files, its roles.
//
// # Layout
//
// Items have the partition key "pk" and the sort key "sk". For a key
// "group/web/ID" of tenant "default" there are
//
//	pk                  sk               what
//	default             log              the log id, drawn when the log is made
//	default/group/web   group/web/ID     the entry
//	default/group       @SEQUENCE        its row in the order of all groups
//	default/group/web   @SEQUENCE        its row in the order of its group
//
// The partition of an entry is that of the first two parts of its key, so that
// IAM's dynamodb:LeadingKeys can keep a replica to its group; the policies are in
// docs/dynamodb.md, and a test holds them to the requests that are made. A row is
// small, tells which key stands at a sequence, and goes when the key is written
// again: what lies after a position is one query.
//
// Keys with the same first part share one order, and one space of sequences. An
// append is one transaction: the entry, if the one that it replaces is the newest;
// its rows, if the sequence is free; and a condition on the rows of the append
// before. DynamoDB applies a transaction item by item, and a query can see half of
// it; but it refuses a transaction that touches an item which another one is
// about to write. So a row is there only when all rows before it are, and a
// follower that asks for the newest row first, and then for those up to it, misses
// none. Of writers at the same time one wins the sequence, and the others try
// again after a random time.
//
// An answer that was lost does no harm: the SDK repeats a transaction under the
// token of the first attempt, and a later Append of the same data finds their
// digest in the entry.
//
// The board's notices are plain items, "default:receipt/web/MEMBER" and
// "default:beacon/web", which DynamoDB deletes 30 days after they were said last.
// An index over them, with keys alone, is how all of a board are followed.
//
// # Time and costs
//
// Followers poll: 0.2 to 5 seconds apart, a quarter of the time since the last
// change; on the board 1 to 5 seconds. For entries of 4 KB, in request units as
// AWS counts them (TestCosts prints them):
//
//	get                               1 read unit
//	append                            14 to 20 write units
//	follow, a quiet minute            6 to 8 read units
//	follow, one entry                 2.5 read units, and 9 for looking closer for a minute
//	a receipt                         3 write units
//	a renewal, to N replicas          60 to 80 write units, 11 N read units
//
// One order takes 50 to 100 appends a second on AWS, by however many writers.
//
// The table is used in one region: DynamoDB does not keep transactions whole
// between those of a global table.
package dynamodb
