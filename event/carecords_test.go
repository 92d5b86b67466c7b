// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"strings"
	"testing"
)

// TestMostCARecords: as many as there may be fit into an entry.
func TestMostCARecords(t *testing.T) {
	k, _ := signer(t)
	all := &CARecords{Issuer: strings.Repeat("i", 63), Shard: "f", List: 1 << 63}
	for range MaxCARecords {
		r := CARecord{Serial: bytes.Repeat([]byte{1}, 20), NotAfter: at, Signed: at, Names: strings.Repeat("ä", maxCANames), Revoked: at, Reason: 1}
		r.Fit()
		if len(r.Names) != maxCANames {
			t.Fatalf("%d bytes of names", len(r.Names))
		}
		all.Records = append(all.Records, r)
	}
	data, err := Sign(k, tenant, at, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of %d", len(data), MaxSize)
	one := CARecord{Serial: []byte{1}}
	for what, bad := range map[string]*CARecords{
		"too many":     {Issuer: "a", Shard: "0", Records: append(all.Records, one)},
		"no issuer":    {Shard: "0"},
		"bad shard":    {Issuer: "a", Shard: "g"},
		"no serial":    {Issuer: "a", Shard: "0", Records: []CARecord{{}}},
		"long serial":  {Issuer: "a", Shard: "0", Records: []CARecord{{Serial: make([]byte, 21)}}},
		"long name":    {Issuer: "a", Shard: "0", Records: []CARecord{{Serial: []byte{1}, Names: strings.Repeat("x", maxCANames+1)}}},
		"no such name": {Issuer: "A", Shard: "0"},
	} {
		if _, err := Sign(k, tenant, at, bad); err == nil {
			t.Errorf("%s: it is signed", what)
		}
	}
}
