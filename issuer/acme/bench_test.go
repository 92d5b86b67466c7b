// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

// BenchmarkOrder is how long an order takes, by polling that adapts and by looking
// every millisecond, in turns at one Pebble:
//
//	go test -run '^$' -bench Order -benchtime 100x ./issuer/acme
func BenchmarkOrder(b *testing.B) {
	pebble := acmetest.Start(b, acmetest.Options{})
	adaptive := open(b, pebble)
	everyMillisecond := open(b, pebble, func(c *acme.Config) {
		c.Poll = func(time.Duration) time.Duration { return time.Millisecond }
	})
	took := make(map[*acme.CA][]time.Duration)
	csr := request(b, "www.example.com")
	for b.Loop() {
		for _, ca := range []*acme.CA{adaptive, everyMillisecond} {
			began := time.Now()
			if _, err := ca.Order(b.Context(), issuer.OrderRequest{CSR: csr}); err != nil {
				b.Fatal(err)
			}
			took[ca] = append(took[ca], time.Since(began))
		}
	}
	ours, theirs := median(took[adaptive]), median(took[everyMillisecond])
	b.ReportMetric(float64(ours)/float64(time.Millisecond), "adaptive-p50-ms")
	b.ReportMetric(float64(theirs)/float64(time.Millisecond), "1ms-p50-ms")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
