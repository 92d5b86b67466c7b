// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// systemctl stands for systemd, which tests do not have: it starts and stops the one
// service that the page is about.
const systemctl = `#!/bin/sh
set -eu
[ "$2" = keyturn ]
case $1 in
start)
	keyturn serve --nats "$NATS_ADDRESS" --http 127.0.0.1:0 </dev/null >>"$LOG" 2>&1 &
	echo $! >"$PID"
	until keyturn cert ls >/dev/null 2>&1; do kill -0 "$(cat "$PID")"; sleep 0.1; done
	;;
stop)
	kill "$(cat "$PID")"
	while kill -0 "$(cat "$PID")" 2>/dev/null; do sleep 0.1; done
	;;
*)
	exit 1
	;;
esac
`

// TestBackup does what backup.md says, block by block: before each that gets something back,
// what the page speaks of is lost. Afterwards everything is managed that was.
func TestBackup(t *testing.T) {
	text, err := os.ReadFile("backup.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks; want what to keep, the way back, what replicas have, and another host", len(blocks))
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "keyturn"), "../cmd/keyturn").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(systemctl), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close() // it is the manager's from now on
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "KEYTURN_DATA="+data, "NATS_ADDRESS="+address,
		"LOG="+filepath.Join(dir, "log"), "PID="+filepath.Join(dir, "pid"))
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-eu", "-c", script)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("%v\n%s\n%s\n%s", err, script, out, text)
		}
		return string(out)
	}
	t.Cleanup(func() { sh("systemctl stop keyturn") })
	sh(`systemctl start keyturn
printf 'default_issuer: internal\nissuers: {internal: {type: local}}\n' | keyturn conf update
keyturn group mk web
keyturn cert mk www.example.com --subdomain
keyturn cert mk db.example.com --subdomain --group web`)
	managed := func() string { return sh("keyturn cert ls -o json | grep -E '\"(id|serial|generation)\"'") }
	want := managed()

	t.Log(sh(blocks[0][1]))
	sh(`rm -r "$KEYTURN_DATA/bus"`)
	t.Log(sh(blocks[1][1]))
	if got := managed(); got != want {
		t.Errorf("after the bus was lost:\n%s\nwant\n%s", got, want)
	}
	if out := sh(blocks[2][1]); !strings.Contains(out, "nothing is missing") {
		t.Errorf("once more: %s", out)
	}
	sh(`systemctl stop keyturn; rm -r "$KEYTURN_DATA"`)
	t.Log(sh(blocks[3][1]))
	if got := managed(); got != want {
		t.Errorf("after the host was lost:\n%s\nwant\n%s", got, want)
	}
	sh("keyturn cert renew --group web")
}
