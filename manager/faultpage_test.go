// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"os"
	"strings"
	"testing"
)

// TestFaultPage holds the table of docs/acme.md to what TestFaults proves: each
// fault is told of in one row, and a message that the row quotes is the one that is
// said.
func TestFaultPage(t *testing.T) {
	page, err := os.ReadFile("../docs/acme.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What happens when\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, f := range faultCases() {
		var rows []string
		for row := range strings.Lines(table) {
			if strings.HasPrefix(row, "| "+f.page) {
				rows = append(rows, row)
			}
		}
		if len(rows) != 1 {
			t.Errorf("%s is told of in %d rows that begin with %q", f.title, len(rows), f.page)
			continue
		}
		quoted, isQuoted := strings.CutPrefix(rows[0], "| `")
		if !isQuoted {
			continue
		}
		quoted, _, _ = strings.Cut(quoted, "`")
		for part := range strings.SplitSeq(quoted, "…") {
			if !strings.Contains(f.says, strings.TrimSpace(part)) {
				t.Errorf("%s is told of as %q, and it says %q", f.title, quoted, f.says)
			}
		}
	}
}
