// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

// TestMemoryIsBounded reads documents of the greatest size whose shape is meant
// to cost: nothing takes more than 200 bytes per byte, garbage
// included.
func TestMemoryIsBounded(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, config.MaxSize/len(s)) }
	for title, text := range map[string]string{
		"nested lists":    fill("["),
		"nested mappings": fill("{a: "),
		"nested blocks":   fill("- "),
		"complex keys":    fill("? "),
		"short entries":   "a: [" + fill("1,")[:config.MaxSize-10] + "]",
		"same key":        fill("a: 1\n"),
		"anchors":         fill("a: &a b\n"),
		"aliases":         "a: &a b\nb: [" + fill("*a,")[:config.MaxSize-30] + "]",
		"tags":            fill("!"),
		"comments":        fill("#\n"),
		"empty lines":     fill("\n"),
		"documents":       fill("---\n"),
		"quotes":          `"` + fill(`\n`)[:config.MaxSize-10] + `"`,
		"directives":      fill("%TAG ! a\n"),
		"one word":        fill("x"),
	} {
		t.Run(title, func(t *testing.T) {
			for name, parse := range map[string]func([]byte) error{
				"shared": func(b []byte) error { _, err := config.ParseShared(b); return err },
				"local":  func(b []byte) error { _, err := config.ParseLocal(b); return err },
			} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := parse([]byte(text))
				runtime.ReadMemStats(&after)
				used := after.TotalAlloc - before.TotalAlloc
				t.Logf("%s: %d KiB", name, used>>10)
				if used > 200*config.MaxSize {
					t.Errorf("%s: allocated %d MiB", name, used>>20)
				}
				if err != nil && len(err.Error()) > 10_000 {
					t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
				}
			}
		})
	}
}
