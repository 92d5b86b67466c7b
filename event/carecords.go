// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxCARecords is how many records one CARecords has.
const MaxCARecords = 600

// maxCANames bounds CARecord.Names, in bytes, so that MaxCARecords fit into an
// entry.
const maxCANames = 300

// CARecords are what the built-in CA has to remember of certificates: those that
// were signed by hand, and those that are revoked. They are spread over shards by
// their serial numbers.
type CARecords struct {
	Issuer string
	// Shard is one of 16: a hexadecimal digit, the last one of the serial numbers.
	Shard string
	// List is the number of the newest list of what is revoked. Shard "0" has it.
	List uint64
	// Records are sorted by Serial. One whose certificate has ended is left out.
	Records []CARecord
}

// A CARecord is one certificate of the built-in CA.
type CARecord struct {
	// Serial is the certificate's serial number, big-endian.
	Serial   []byte
	NotAfter time.Time
	// Signed is when it was signed by hand; zero where a manager renews it.
	Signed time.Time
	// Names are what it is for, for people: at most 300 bytes.
	Names string
	// Revoked is when it was revoked; zero if it was not.
	Revoked time.Time
	// Reason is an issuer.Reason.
	Reason uint64
}

const (
	recordsIssuer tag = iota + 1
	recordsShard
	recordsList
	recordsRecord
)

const (
	caSerial tag = iota + 1
	caNotAfter
	caSigned
	caNames
	caRevoked
	caReason
)

func (r *CARecords) kind() Type  { return TypeCARecords }
func (r *CARecords) key() string { return CARecordsKey(r.Issuer, r.Shard) }

func (r *CARecords) fields(f *codec) {
	f.string(recordsIssuer, &r.Issuer, maxWord)
	f.string(recordsShard, &r.Shard, maxWord)
	f.uint(recordsList, &r.List)
	messages(f, recordsRecord, &r.Records, MaxCARecords)
}

func (r *CARecord) fields(f *codec) {
	f.bytes(caSerial, &r.Serial)
	f.time(caNotAfter, &r.NotAfter)
	f.time(caSigned, &r.Signed)
	f.string(caNames, &r.Names, maxCANames)
	f.time(caRevoked, &r.Revoked)
	f.uint(caReason, &r.Reason)
}

// Fit cuts what a request may have made longer than a record has room for.
func (r *CARecord) Fit() {
	if len(r.Names) > maxCANames {
		r.Names = strings.ToValidUTF8(r.Names[:maxCANames], "")
	}
}

func (r *CARecords) check() error {
	if len(r.Records) > MaxCARecords {
		return fmt.Errorf("%d records of certificates: at most %d are kept", len(r.Records), MaxCARecords)
	}
	for i := range r.Records {
		if n := len(r.Records[i].Serial); n == 0 || n > 20 { // RFC 5280 section 4.1.2.2
			return errors.New("a serial number of more than 20 bytes, or none")
		}
	}
	if err := checkShard(r.Shard); err != nil {
		return err
	}
	return CheckName(r.Issuer)
}

func checkShard(s string) error {
	if len(s) != 1 || s < "0" || s > "9" && s < "a" || s > "f" {
		return fmt.Errorf("the shard %.10q: one of 0-9 a-f is allowed", s)
	}
	return nil
}
