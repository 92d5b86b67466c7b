// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		passes = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
		skips = `{"Action":"output","Package":"q","Test":"TestReal","Output":"=== RUN   TestReal\n"}
{"Action":"output","Package":"q","Test":"TestReal","Output":"    q_test.go:9: no openssl; run: apt-get install openssl\n"}
{"Action":"output","Package":"q","Test":"TestReal","Output":"--- SKIP: TestReal (0.00s)\n"}
{"Action":"skip","Package":"q","Test":"TestReal"}
{"Action":"output","Package":"q","Output":"ok  \tq\t0.1s\n"}
{"Action":"pass","Package":"q"}
{"Action":"output","Package":"r","Output":"?   \tr\t[no test files]\n"}
{"Action":"skip","Package":"r"}
`
		fails = `{"Action":"output","Package":"s","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"s","Test":"TestB","Output":"    b_test.go:2: got 1, want 2\n"}
{"Action":"output","Package":"s","Test":"TestB","Output":"--- FAIL: TestB (0.00s)\n"}
{"Action":"fail","Package":"s","Test":"TestB"}
{"Action":"output","Package":"s","Output":"FAIL\ts\t0.1s\n"}
{"Action":"fail","Package":"s"}
`
		panics = `{"Action":"output","Package":"u","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"u","Test":"TestC","Output":"panic: test timed out\n"}
{"Action":"output","Package":"u","Output":"FAIL\tu\t0.1s\n"}
{"Action":"fail","Package":"u"}
`
		doesNotBuild = `{"ImportPath":"v [v.test]","Action":"build-output","Output":"v/v.go:3: undefined: x\n"}
{"ImportPath":"v [v.test]","Action":"build-fail"}
{"Action":"output","Package":"v","Output":"FAIL\tv [build failed]\n"}
{"Action":"fail","Package":"v","FailedBuild":"v [v.test]"}
`
	)
	for _, test := range []struct {
		what, events string
		ci           bool
		want         string
		ok           bool
	}{
		{"pass", passes, true, "ok  \tp\t0.1s\n1 passed, 0 failed\n", true},
		{
			"skip", passes + skips, false,
			"ok  \tp\t0.1s\nSKIP\tq TestReal: q_test.go:9: no openssl; run: apt-get install openssl\nok  \tq\t0.1s\n" +
				"?   \tr\t[no test files]\n1 passed, 0 failed, 1 skipped\n", true,
		},
		{
			"skip under CI", skips, true,
			"SKIP\tq TestReal: q_test.go:9: no openssl; run: apt-get install openssl\nok  \tq\t0.1s\n?   \tr\t[no test files]\n" +
				"1 skipped, which fails the run where CI is true: install what is missing\n0 passed, 1 failed\n", false,
		},
		{
			"fail", fails + passes, false,
			"    b_test.go:2: got 1, want 2\n--- FAIL: TestB (0.00s)\nFAIL\ts\t0.1s\nok  \tp\t0.1s\n1 passed, 1 failed\n", false,
		},
		{"panic", panics, false, "panic: test timed out\nFAIL\tu\t0.1s\n0 passed, 1 failed\n", false},
		{"build", doesNotBuild, false, "v/v.go:3: undefined: x\nFAIL\tv [build failed]\n0 passed, 1 failed\n", false},
		{"nothing", "", false, "0 passed, 0 failed\n", true},
	} {
		t.Run(test.what, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(json.NewDecoder(strings.NewReader(test.events))); err != nil {
				t.Fatal(err)
			}
			if ok := r.end(test.ci); ok != test.ok || out.String() != test.want {
				t.Errorf("ok %t, want %t; output:\n%swant:\n%s", ok, test.ok, out.String(), test.want)
			}
		})
	}
}

// What is above is what "go test" wrote once; this is what it writes today.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":       "module example.test\n\ngo 1.26\n",
		"a/a_test.go":  "package a\n\nimport \"testing\"\n\nfunc TestGood(*testing.T) {}\nfunc TestNot(t *testing.T) { t.Skip(\"not here\") }\n",
		"b/b_test.go":  "package b\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Error(\"so bad\") }\n",
		"c/c_test.go":  "package c\n\nvar x undefinedType\n",
		"d/d_test.go":  "package d\n\nimport \"testing\"\n\nfunc TestPanic(*testing.T) { panic(\"at the disco\") }\n",
		"e/no_test.go": "package e\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, test := range []struct {
		args string
		ci   bool
		code int
		want []string
	}{
		{"./a", false, 0, []string{"SKIP\texample.test/a TestNot: a_test.go:6: not here", "1 passed, 0 failed, 1 skipped\n"}},
		{"./a", true, 1, []string{"1 passed, 1 failed\n"}},
		{"./...", false, 1, []string{"so bad", "undefinedType", "at the disco", "1 passed, 3 failed, 1 skipped\n"}},
		{"./nowhere", false, 1, nil},
	} {
		var out, errs strings.Builder
		if code := run([]string{test.args}, &out, &errs, test.ci); code != test.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", test.args, code, test.code, out.String(), errs.String())
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is missing in:\n%s%s", test.args, want, out.String(), errs.String())
			}
		}
	}
}
