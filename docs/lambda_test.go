// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stub stands for every program that lambda.md calls and that would need an account of
// AWS, or take long. It notes its arguments, each ended by a NUL, and a last NUL; what it
// prints is the ARN or number that the page asks for.
const stub = `#!/bin/sh
for arg in "$(basename "$0")" "$@"; do printf '%s\0' "$arg"; done >>"$NOTES"
printf '\0' >>"$NOTES"
case "$2" in
get-caller-identity) echo 123456789012 ;;
create-secret) echo arn:aws:secretsmanager:eu-west-1:123456789012:secret:keyturn/identity-AbCdEf ;;
invoke) echo '{}' >result.json ;;
esac
`

// TestLambda runs the commands of lambda.md in order: the shell understands them, every
// JSON text that they make or hand over is one, and no variable of theirs is empty.
func TestLambda(t *testing.T) {
	text, err := os.ReadFile("lambda.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	for _, name := range []string{"aws", "go", "keyturn", "zip"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(stub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script := "set -eu\n"
	for _, m := range shBlock.FindAllStringSubmatch(string(text), -1) {
		script += m[1]
	}
	notes := filepath.Join(dir, "notes")
	sh := exec.Command("sh", "-c", script)
	sh.Dir = dir
	sh.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "NOTES=" + notes}
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"policy.json", "target.json"} {
		file, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		checkJSON(t, name, string(file))
	}
	called, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	commands := strings.Split(strings.TrimSuffix(string(called), "\x00\x00"), "\x00\x00")
	if len(commands) < 15 {
		t.Errorf("only %d commands were run", len(commands))
	}
	for _, command := range commands {
		for arg := range strings.SplitSeq(command, "\x00") {
			if strings.HasPrefix(arg, "{") {
				checkJSON(t, strings.ReplaceAll(command, "\x00", " "), arg)
			}
		}
	}
}

// checkJSON fails unless the text is JSON and every ARN in it has an account, where one of
// its kind has.
func checkJSON(t *testing.T, name, text string) {
	t.Helper()
	if !json.Valid([]byte(text)) {
		t.Errorf("%s: %s is not JSON", name, text)
	}
	for _, quoted := range strings.Split(text, `"`) {
		if strings.HasPrefix(quoted, "arn:") && !strings.Contains(quoted, ":123456789012:") {
			t.Errorf("%s: %s has no account", name, quoted)
		}
	}
}
