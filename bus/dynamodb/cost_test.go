// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"encoding/base64"
	"iter"
	"maps"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestCosts counts the requests and the units that docs/dynamodb.md tells of, for
// entries of 4 KB. Run it with -v to see them.
func TestCosts(t *testing.T) {
	p := newProxy(t, dynamolocal.Shared(t))
	url := table(t, dynamolocal.Shared(t))
	l := open(t, p.url(url), "")
	p.requests()
	spent := func(what string, units float64, want map[string]int) {
		t.Helper()
		got, sum := make(map[string]int), 0.0
		for _, r := range p.requests() {
			got[r.operation]++
			if r.operation == "TransactWriteItems" {
				r.units = transactionUnits(r)
			}
			sum += r.units
		}
		t.Logf("%-40s %4.1f units by %v", what, sum, got)
		if sum != units || !maps.Equal(got, want) {
			t.Errorf("%s: %v units by %v; want %v by %v", what, sum, got, units, want)
		}
	}
	data := strings.Repeat("x", 3800) // with its keys and digest less than 4 KB
	a := write(t, l, "group/web/a", bus.Position{}, data)
	spent("append: the first of an order", 8+6, map[string]int{"Query": 1, "TransactWriteItems": 1})
	b := write(t, l, "group/web/b", bus.Position{}, data)
	spent("append: a new key", 8+8, map[string]int{"TransactWriteItems": 1})
	write(t, l, "group/web/b", b, data+".")
	spent("append: the newest key's next entry", 8+8, map[string]int{"TransactWriteItems": 1})
	a = write(t, l, "group/web/a", a, data+".")
	spent("append: another key's next entry", 8+12, map[string]int{"TransactWriteItems": 1})
	if _, err := l.Get(t.Context(), "group/web/a"); err != nil {
		t.Fatal(err)
	}
	spent("get", 1, map[string]int{"GetItem": 1})
	if _, err := l.Durability(t.Context()); err != nil {
		t.Fatal(err)
	}
	spent("durability", 1+1, map[string]int{"GetItem": 1, "Query": 1})
	if _, err := l.Count(t.Context(), []string{"group"}); err != nil {
		t.Fatal(err)
	}
	spent("count: the keys with one first part", 0.5, map[string]int{"Query": 1})

	next, stop := iter.Pull2(l.Follow(t.Context(), "group/web", bus.Position{}))
	defer stop()
	until := func(done func(bus.Update) bool) {
		t.Helper()
		for {
			u, err, ok := next()
			if err != nil || !ok {
				t.Fatal("the follower ended: ", err)
			}
			if done(u) {
				return
			}
		}
	}
	until(func(u bus.Update) bool { return u.CaughtUp })
	spent("follow: to begin with, two entries", 3+2+1, map[string]int{"GetItem": 1, "Query": 3, "BatchGetItem": 1})
	// A follower that nobody asks for more looks no more.
	write(t, open(t, url, ""), "group/web/a", a, data)
	until(func(u bus.Update) bool { return u.Key == "group/web/a" })
	spent("follow: a change", 2.5, map[string]int{"Query": 2, "BatchGetItem": 1})

	if err := l.Board().Put(t.Context(), "receipt/web/m/0", []byte(data[:1500])); err != nil {
		t.Fatal(err)
	}
	spent("receipt: the first", 3, map[string]int{"PutItem": 1})
	if err := l.Board().Put(t.Context(), "receipt/web/m/0", []byte(data[:1500])); err != nil {
		t.Fatal(err)
	}
	spent("receipt: again", 3, map[string]int{"PutItem": 1})
}

// transactionUnits counts a transaction by AWS's rules, which the emulator does
// not know: two units for each KB that is written, checked or deleted, of each
// item. What is checked or deleted here has less than one.
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html
func transactionUnits(r request) (units float64) {
	items, _ := r.body["TransactItems"].([]any)
	for _, i := range items {
		size := 1
		if put, ok := i.(map[string]any)["Put"]; ok {
			for name, v := range put.(map[string]any)["Item"].(map[string]any) {
				size += len(name)
				for kind, text := range v.(map[string]any) {
					n := len(text.(string))
					if kind == "B" {
						n = base64.StdEncoding.DecodedLen(n)
					}
					size += n
				}
			}
		}
		units += 2 * float64((size+1023)/1024)
	}
	return units
}
