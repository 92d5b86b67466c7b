// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns"
)

// A toldRow is a row of docs/acme.md on what goes wrong.
type toldRow struct {
	title string // what is told of
	page  string // how the row begins
	says  string // what is said; "" where the row quotes nothing
}

// toldRows are the rows that TestFaults does not prove, but the tests that are named,
// by their folders.
var toldRows = []toldRow{
	{"manager: TestABudgetEndsNoCertificate", "`issuer … is not asked before …`", (&HeldError{Issuer: "le"}).Error()},
	{"manager: TestChallengesThatNobodyWouldAnswer", "`no replica of group … is live`", (&UnansweredError{Group: "web"}).Error()},
	{"manager: TestUnansweredChallengesNameWhoDoesNot", "`the challenge … is answered by", (&UnansweredError{Answered: 1, Of: 2}).Error()},
	{"solver/dns: TestWaitsForAllServers", "`the TXT record …", (&dns.PropagationError{}).Error()},
	{"manager: TestAnUnfinishedCertificate", "`the order stays, and is gone on with by whoever runs`", (&UnfinishedError{}).Error()},
	{"e2e/killed: TestKilled", "the manager is killed", ""},
	{"manager: TestAnOrderIsWrittenDownFirst", "the bus is down", ""},
	{"manager: TestAHoldIsWrittenOnce", "a renewal is late", ""},
}

// TestFaultPage holds the table of docs/acme.md to what TestFaults and the others
// prove: each fault is told of in one row, each row tells of one, and a message that
// the row quotes is the one that is said.
func TestFaultPage(t *testing.T) {
	page, err := os.ReadFile("../docs/acme.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What happens when\n")
	table, _, _ = strings.Cut(table, "\n## ")
	_, table, _ = strings.Cut(table, "|---|---|---|\n")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	told := make(map[string]bool)
	for _, one := range toldRows {
		if dir, name, _ := strings.Cut(one.title, ": "); !hasTest(t, dir, name) {
			t.Errorf("there is no %s", one.title)
		}
	}
	all := slices.Clone(toldRows)
	for _, f := range faultCases() {
		all = append(all, toldRow{f.title, f.page, f.says})
	}
	for _, one := range all {
		tell := slices.DeleteFunc(slices.Clone(rows), func(row string) bool { return !strings.HasPrefix(row, "| "+one.page) })
		if len(tell) != 1 {
			t.Errorf("%s is told of in %d rows that begin with %q", one.title, len(tell), one.page)
			continue
		}
		told[tell[0]] = true
		quoted, isQuoted := strings.CutPrefix(tell[0], "| `")
		if !isQuoted {
			continue
		}
		quoted, _, _ = strings.Cut(quoted, "`")
		for part := range strings.SplitSeq(quoted, "…") {
			if !strings.Contains(one.says, strings.TrimSpace(part)) {
				t.Errorf("%s is told of as %q, and it says %q", one.title, quoted, one.says)
			}
		}
	}
	for _, row := range rows {
		if !told[row] {
			t.Errorf("no test is named for the row %s", row)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)")
	})
}
