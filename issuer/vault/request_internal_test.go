// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"encoding/asn1"
	"strconv"
	"strings"
	"testing"
)

// FuzzOtherName has every otherName that is taken be one that Vault makes again of the
// text, byte by byte.
func FuzzOtherName(f *testing.F) {
	good := encodeOther(f, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, "web@example.com")
	f.Add(good)
	f.Add(append(bytes.Clone(good), 0))
	f.Add(bytes.Replace(good, []byte("web"), []byte{'w', 0xff, 'b'}, 1))                               // not UTF-8
	f.Add(bytes.Replace(good, []byte{0xa0}, []byte{0xa1}, 1))                                          // another tag
	f.Add(bytes.Replace(good, []byte{asn1.TagUTF8String, 15}, []byte{asn1.TagPrintableString, 15}, 1)) // another type
	f.Fuzz(func(t *testing.T, content []byte) {
		text, err := otherName(content)
		if err != nil {
			return
		}
		oid, typed, _ := strings.Cut(text, ";")
		value, ok := strings.CutPrefix(typed, "UTF8:")
		if !ok {
			t.Fatalf("%q", text)
		}
		var id asn1.ObjectIdentifier
		for part := range strings.SplitSeq(oid, ".") {
			n, err := strconv.Atoi(part)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			id = append(id, n)
		}
		if again := encodeOther(t, id, value); !bytes.Equal(again, content) {
			t.Errorf("%x is %q, which is %x", content, text, again)
		}
	})
}

// encodeOther is the content of an OtherName (RFC 5280 section 4.2.1.6).
func encodeOther(t testing.TB, id asn1.ObjectIdentifier, text string) []byte {
	t.Helper()
	var content []byte
	for _, part := range []struct {
		value  any
		params string
	}{{id, ""}, {text, "utf8,explicit,tag:0"}} {
		der, err := asn1.MarshalWithParams(part.value, part.params)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, der...)
	}
	return content
}
