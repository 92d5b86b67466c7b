// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"time"
)

// MaxBuckets is how many buckets one Budget has.
const MaxBuckets = 2000

// A Budget is what all managers together have asked of an issuer that limits
// how often it is asked. A big one is spread over shards.
type Budget struct {
	Issuer string
	// Shard is one of 16: a hexadecimal digit.
	Shard string
	// Buckets are sorted by Key.
	Buckets []Bucket
}

// A Bucket is one limit that was drawn on. It fills up by itself: one that is
// full is left out.
type Bucket struct {
	// Key says which limit, and whose, such as "orders", "domain example.com".
	Key string
	// Full is when it is full again, if nothing more is drawn: the theoretical
	// arrival time of the generic cell rate algorithm.
	Full time.Time
}

const (
	budgetIssuer tag = iota + 1
	budgetShard
	budgetBucket
)

const (
	bucketKey tag = iota + 1
	bucketFull
)

func (b *Budget) kind() Type  { return TypeBudget }
func (b *Budget) key() string { return BudgetKey(b.Issuer, b.Shard) }

func (b *Budget) fields(f *codec) {
	f.string(budgetIssuer, &b.Issuer, maxWord)
	f.string(budgetShard, &b.Shard, maxWord)
	messages(f, budgetBucket, &b.Buckets, MaxBuckets)
}

func (b *Bucket) fields(f *codec) {
	f.string(bucketKey, &b.Key, maxBucketKey)
	f.time(bucketFull, &b.Full)
}

// maxBucketKey leaves room for a name and a word, in bytes.
const maxBucketKey = 300

func (b *Budget) check() error {
	if len(b.Buckets) > MaxBuckets {
		return fmt.Errorf("%d buckets: at most %d are kept", len(b.Buckets), MaxBuckets)
	}
	if err := checkShard(b.Shard); err != nil {
		return err
	}
	return CheckName(b.Issuer)
}

// IssuerControl is what operators say of an issuer while managers run.
type IssuerControl struct {
	Issuer string
	// Pause is set while nothing is asked of it.
	Pause *Pause
}

const (
	controlIssuer tag = iota + 1
	controlPause
)

func (c *IssuerControl) kind() Type  { return TypeIssuerControl }
func (c *IssuerControl) key() string { return ControlKey(c.Issuer) }

func (c *IssuerControl) fields(f *codec) {
	f.string(controlIssuer, &c.Issuer, maxWord)
	pointer(f, controlPause, &c.Pause)
}

func (c *IssuerControl) check() error { return CheckName(c.Issuer) }
