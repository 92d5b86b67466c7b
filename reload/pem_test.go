// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// No block may be passed over, whatever is wrong with it, and nothing else may be taken
// for one.
func TestBlocks(t *testing.T) {
	a, b := certPEM(newCA(t, "a", nil).cert), certPEM(newCA(t, "b", nil).cert)
	text := func(s string) []byte { return []byte(s) }
	replaced := func(old, with string) []byte { return bytes.Replace(b, text(old), text(with), 1) }
	for name, good := range map[string][]byte{
		"two":                slices.Concat(a, b),
		"CRLF":               bytes.ReplaceAll(slices.Concat(a, b), text("\n"), text("\r\n")),
		"comments":           slices.Concat(text("# one\n-----\n"), a, text("- two\n"), b),
		"openssl s_client":   slices.Concat(text("---\nCertificate chain\n"), a, b, text("---\nServer certificate\n---\n")),
		"no last line break": slices.Concat(a, bytes.TrimSpace(b)),
		"zeros after it":     slices.Concat(a, b, make([]byte, 10)),
	} {
		if list, err := blocks(good); err != nil || len(list) != 2 {
			t.Errorf("%s: %d blocks, %v; want 2", name, len(list), err)
		}
	}
	for name, bad := range map[string][]byte{
		"a byte order mark":   slices.Concat(text("\xef\xbb\xbf"), a, b),
		"an indented block":   slices.Concat(a, text("  "), b),
		"no line break":       slices.Concat(bytes.TrimSpace(a), b),
		"zeros before":        slices.Concat(a, text("\x00"), b),
		"a dash less":         slices.Concat(a, replaced("-----BEGIN", "----BEGIN")),
		"a dash less, behind": slices.Concat(a, replaced("-----END", "----END")),
		"only CR":             bytes.ReplaceAll(slices.Concat(a, b), text("\n"), text("\r")),
	} {
		if list, err := blocks(bad); !errors.Is(err, errCutShort) {
			t.Errorf("%s: %d blocks, %v", name, len(list), err)
		}
	}
	for n := 1; n < len(b); n++ {
		for _, rest := range [][]byte{nil, make([]byte, 10)} {
			list, err := blocks(slices.Concat(a, b[:n], rest))
			whole := rest == nil && n == len(b)-1 // all but the line break
			if (err == nil) != whole || whole && len(list) != 2 {
				t.Errorf("cut after %d of %d bytes: %d blocks, %v", n, len(b), len(list), err)
			}
		}
	}
}
