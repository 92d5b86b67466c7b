// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Attributes of the table's items. None of the names is one of DynamoDB's
// reserved words, which expressions could not name.
const (
	attrPK      = "pk"      // the partition key; S
	attrSK      = "sk"      // the sort key; S
	attrLog     = "logid"   // the log id; S
	attrSeq     = "seq"     // an entry's sequence; N
	attrEntry   = "entry"   // the key that a row is about; S
	attrPayload = "payload" // an entry's or a notice's data; B
	attrDigest  = "digest"  // the SHA-256 of payload; B
	attrBoard   = "board"   // the index key of a notice; S
	attrChanged = "changed" // when a notice was put, by the clock of who did, in µs; N
	attrExpires = "expires" // when DynamoDB may delete a notice, in Unix seconds; N
)

// boardIndex is the table's index: which notices there are, without their data.
const boardIndex = "board"

// metaSK is the sort key of a tenant's own item, which holds the log id.
const metaSK = "log"

// rowMark starts the sort key of a row. No key of the bus has it.
const rowMark = "@"

type item = map[string]types.AttributeValue

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func num(n uint64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatUint(n, 10)}
}

func blob(b []byte) types.AttributeValue { return &types.AttributeValueMemberB{Value: b} }

func at(pk, sk string) item { return item{attrPK: str(pk), attrSK: str(sk)} }

func text(i item, attr string) string {
	if v, ok := i[attr].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func number(i item, attr string) uint64 {
	v, ok := i[attr].(*types.AttributeValueMemberN)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(v.Value, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func bytesOf(i item, attr string) []byte {
	if v, ok := i[attr].(*types.AttributeValueMemberB); ok && v.Value != nil {
		return v.Value
	}
	return []byte{}
}

// leading returns the first n parts of a key, or all if it has less.
func leading(key string, n int) string {
	end := 0
	for range n {
		i := strings.IndexByte(key[end:], '/')
		if i < 0 {
			return key
		}
		end += i + 1
	}
	return key[:end-1]
}

func depth(key string) int { return strings.Count(key, "/") + 1 }

// A space is a tenant's share of the table. All of its items lie in partitions
// whose keys start with its name and a character that no name has.
type space string

func (s space) meta() item { return at(string(s), metaSK) }

// partition is the partition of an entry: that of the first two parts of its key.
func (s space) partition(key string) string { return string(s) + "/" + leading(key, 2) }

// entry is the place of an entry.
func (s space) entry(key string) item { return at(s.partition(key), key) }

// feed is the partition with the rows of a scope.
func (s space) feed(scope string) string { return s.partition(scope) }

// order is the partition with the rows by which the sequences of a key are given
// out: those of all keys that have the same first part.
func (s space) order(key string) string { return string(s) + "/" + leading(key, 1) }

// feeds are the partitions with a row for a key.
func (s space) feeds(key string) []string {
	if order, own := s.order(key), s.partition(key); order != own {
		return []string{order, own}
	}
	return []string{s.order(key)}
}

// receipts is the first part of the keys of which each host writes its own.
const receipts = "receipt"

// boardDepth is how many parts of a notice's key name its partition: two, as in
// the log, but of receipts three, so that a member can be kept to its own.
func boardDepth(key string) int {
	if leading(key, 1) == receipts {
		return 3
	}
	return 2
}

// board is the partition of a notice.
func (s space) board(key string) string { return string(s) + ":" + leading(key, boardDepth(key)) }

// boardIndexed is the index key of a notice.
func (s space) boardIndexed(key string) string { return string(s) + ":" + leading(key, 1) }

// A row says at which sequence an entry stands. A feed has one for every key.
type row struct {
	seq uint64
	log string
	key string
}

// rowSK sorts as seq does: the largest has 20 digits.
func rowSK(seq uint64) string { return fmt.Sprintf("%s%020d", rowMark, seq) }

func (r row) item(feed string) item {
	i := at(feed, rowSK(r.seq))
	i[attrLog], i[attrEntry] = str(r.log), str(r.key)
	return i
}

func rowOf(i item) (row, error) {
	sk := text(i, attrSK)
	seq, err := strconv.ParseUint(strings.TrimPrefix(sk, rowMark), 10, 64)
	if err != nil || text(i, attrEntry) == "" {
		return row{}, fmt.Errorf("the item %q of %q is not a row of a keyturn log", sk, text(i, attrPK))
	}
	return row{seq, text(i, attrLog), text(i, attrEntry)}, nil
}
