// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	asChild()
	m.Run()
}

// What is promised whatever the machine: every contender takes part, choosing allocates
// nothing, no handshake fails and none is stale. How long anything took is not looked at.
func TestQuick(t *testing.T) {
	var stdout, stderr strings.Builder
	if code := run([]string{"-quick", "-output", "json"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s", code, stderr.String())
	}
	var rows []row
	if err := json.Unmarshal([]byte(stdout.String()), &rows); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, r := range rows {
		got[r.Work] = append(got[r.Work], r.Contender)
		if r.Contender == nameStore && strings.HasPrefix(r.Work, "choose") && *r.Allocs != 0 {
			t.Errorf("%s: %d allocations", r.Work, *r.Allocs)
		}
		if (r.Unit == "failed" || r.Unit == "stale") && r.Figure.Median != 0 {
			t.Errorf("%s: %.0f %s", r.Work, r.Figure.Median, r.Unit)
		}
		if r.Unit != "failed" && r.Unit != "stale" && r.Figure.Median <= 0 {
			t.Errorf("%s, %s: %v", r.Work, r.Contender, r.Figure)
		}
	}
	peers := []string{nameMap, nameStore, nameCertMagic}
	for work, want := range map[string][]string{
		"choose among 1: hit":                             {namePointer, nameMap, nameStore, nameCertMagic, nameAutocert, nameWatcher, namePemfile},
		"choose among 1: hit, one replaced per ms":        {namePointer, nameMap, nameStore, nameCertMagic},
		"choose among 1: miss":                            peers,
		"choose among 200: hit":                           {nameMap, nameStore, nameCertMagic, nameAutocert},
		"choose among 200: wildcard":                      peers,
		"choose among 200: wildcard, one replaced per ms": peers,
		"choose among 200: miss, one replaced per ms":     peers,
		"replace one of 10":                               {nameMap, namePut, nameLoad, nameCertMagic},
		"replace one of 1,000":                            {nameMap, namePut, nameLoad},
		"reload a pair of files that changed":             {nameStatic, nameStore, nameWatcher, namePemfile, nameCertMagic},
		"hold 200 certificates":                           {"raw bytes", "Store, lazily", "Store, opened", nameCertMagic},
		"full TLS 1.3 handshake":                          {"static tls.Config", "static again", nameStore, nameTrust, nameCertMagic, nameAutocert, nameWatcher, namePemfile},
		"order a certificate":                             {"every ms", "adaptive", "acmez"},
		"renew, one after the other":                      {"Keyturn's client", "acmez, every ms", nameInMemory, nameOnNATS},
		"renew, 8 at once":                                {"Keyturn's client", "acmez, every ms", nameInMemory, nameOnNATS},
		"issue, from the key on":                          {nameX509, nameLocal, nameLimited},
		"renew by the built-in CA, 8 at once":             {nameAppend, nameManaged},
		"one renewal to 5 replicas, CPU each":             {nameHeard, nameFollow, nameSwapped, nameReplica},
		"keep 5 replicas current, CPU a second":           {nameWatch, nameCurrent},
		"the bus restarts under 5 replicas":               {nameOrdered, nameCurrent},
		"catch up with 50 certificates":                   {nameVerify, nameCatchUp},
		"start with 50 certificates":                      {nameRead, nameStart, nameStart},
		"1,000 handshakes while replacing":                {nameStore, nameStore, nameStore},
	} {
		if !slices.Equal(got[work], want) {
			t.Errorf("%s: %q took part, want %q", work, got[work], want)
		}
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	code := run([]string{"-quick", "-only", "^(memory|choose among 1)$"}, &out, &strings.Builder{})
	if code != 0 || !strings.HasPrefix(out.String(), "WORK ") || !strings.Contains(out.String(), "≤ 1.5 × raw bytes") {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"-help"}, 0, "", "go run -C bench"},
		{[]string{"-list"}, 0, "choose among 1,000,000\nreplace\n", ""},
		{[]string{"-nothing"}, 2, "", "-nothing"},
		{[]string{"more"}, 2, "", `unknown argument "more"`},
		{[]string{"-output", "yaml"}, 2, "", `-output is "yaml"`},
		{[]string{"-handshakes", "-1"}, 2, "", "-handshakes is -1"},
		{[]string{"-certificates", "-1"}, 2, "", "-certificates is -1"},
		{[]string{"-only", "("}, 2, "", "-only: "},
		{[]string{"-only", "nothing"}, 1, "", `-only "nothing" matches no work`},
	} {
		var stdout, stderr strings.Builder
		code := run(test.args, &stdout, &stderr)
		if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%q: exit code %d, %q, %q", test.args, code, stdout.String(), stderr.String())
		}
	}
}

func TestSpread(t *testing.T) {
	if got, want := spreadOf([]float64{5, 1, 4, 2, 3}), (spread{2, 3, 4}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	a, b := samples{ns: []float64{10, 30, 20}}, samples{ns: []float64{5, 10, 5}}
	if got, want := ratio(a, b), (spread{3, 3, 4}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := above(a, b).Median; got != 15 {
		t.Errorf("got %v, want 15", got)
	}
}

// A certificate that had been replaced when the handshake began is stale, also after the
// certificates have begun anew.
func TestJudgeNumber(t *testing.T) {
	for _, test := range []struct {
		place, before, after int64
		stale                bool
	}{
		{0, 0, 0, false},
		{3, 3, 3, false},
		{4, 3, 4, false},
		{2, 3, 4, true},
		{5, 3, 4, true},   // not put yet
		{1, 8, 11, false}, // the second time round
		{7, 8, 11, true},
		{3, 8, 11, true},
	} {
		if stale := isStale(test.place, 10, test.before, test.after); stale != test.stale {
			t.Errorf("place %d between %d and %d: stale is %t", test.place, test.before, test.after, stale)
		}
	}
}
