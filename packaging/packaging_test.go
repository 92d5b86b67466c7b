// SPDX-License-Identifier: Apache-2.0

// Package packaging has no code: its test holds the files beside it.
package packaging

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sandbox is what every service says: a process that holds private keys sees and
// may do no more than it has to.
var sandbox = map[string]string{
	"UMask":                   "0077",
	"LimitCORE":               "0",
	"NoNewPrivileges":         "yes",
	"CapabilityBoundingSet":   "",
	"AmbientCapabilities":     "",
	"ProtectSystem":           "strict",
	"ProtectHome":             "yes",
	"ProtectProc":             "invisible",
	"ProtectClock":            "yes",
	"ProtectControlGroups":    "yes",
	"ProtectHostname":         "yes",
	"ProtectKernelLogs":       "yes",
	"ProtectKernelModules":    "yes",
	"ProtectKernelTunables":   "yes",
	"PrivateDevices":          "yes",
	"PrivateTmp":              "yes",
	"PrivateUsers":            "yes",
	"LockPersonality":         "yes",
	"MemoryDenyWriteExecute":  "yes",
	"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
	"RestrictNamespaces":      "yes",
	"RestrictRealtime":        "yes",
	"RestrictSUIDSGID":        "yes",
	"RemoveIPC":               "yes",
	"KeyringMode":             "private",
	"SystemCallArchitectures": "native",
	"SystemCallFilter":        "@system-service\n~@privileged",
	"SystemCallErrorNumber":   "EPERM",
}

func TestUnits(t *testing.T) {
	for _, test := range []struct {
		file string
		want map[string]map[string]string
	}{
		{"keyturn.service", map[string]map[string]string{
			"Unit": {"After": "network-online.target", "Wants": "network-online.target"},
			"Service": {
				"Type":               "notify",
				"NotifyAccess":       "main",
				"ExecStart":          "/usr/bin/keyturn serve",
				"Environment":        "KEYTURN_DATA=%S/keyturn",
				"Restart":            "on-failure",
				"DynamicUser":        "yes",
				"StateDirectory":     "keyturn",
				"StateDirectoryMode": "0700",
			},
			"Install": {"WantedBy": "multi-user.target"},
		}},
		{"keyturn-proxy.service", map[string]map[string]string{
			"Unit": {"Requires": "keyturn-proxy.socket", "After": "network-online.target keyturn-proxy.socket"},
			"Service": {
				"Type":               "notify",
				"NotifyAccess":       "main",
				"ExecStart":          "/usr/bin/keyturn proxy",
				"EnvironmentFile":    "/etc/keyturn/proxy.env",
				"Restart":            "on-failure",
				"TimeoutStopSec":     "45s",
				"DynamicUser":        "yes",
				"StateDirectory":     "keyturn-proxy",
				"StateDirectoryMode": "0700",
			},
			"Install": {"WantedBy": "multi-user.target"},
		}},
		{"keyturn-proxy.socket", map[string]map[string]string{
			"Socket":  {"ListenStream": "443", "FileDescriptorName": "https"},
			"Install": {"WantedBy": "sockets.target"},
		}},
		{"keyturn-renew.service", map[string]map[string]string{
			"Unit": {"After": "network-online.target", "Wants": "network-online.target"},
			"Service": {
				"Type":            "oneshot",
				"ExecStart":       "/usr/bin/keyturn renew --due",
				"EnvironmentFile": "/etc/keyturn/renew.env",
				"User":            "keyturn",
			},
		}},
		{"keyturn-renew.timer", map[string]map[string]string{
			"Timer":   {"OnCalendar": "hourly", "RandomizedDelaySec": "45min", "Persistent": "true"},
			"Install": {"WantedBy": "timers.target"},
		}},
	} {
		got := parse(t, filepath.Join("systemd", test.file))
		if s := test.want["Service"]; s != nil {
			maps.Copy(s, sandbox)
		}
		for section, keys := range test.want {
			for key, want := range keys {
				if v, ok := got[section][key]; !ok || v != want {
					t.Errorf("%s: [%s] %s=%q, want %q", test.file, section, key, v, want)
				}
			}
		}
		if got["Unit"]["Description"] == "" {
			t.Errorf("%s has no description", test.file)
		}
		if _, ok := got["Service"]["WatchdogSec"]; ok {
			t.Errorf("%s: keyturn sends no watchdog messages: systemd would kill it", test.file)
		}
	}
}

// Where systemd is at hand, it reads the units too. It wants the programs to be
// there, so that another one stands in.
func TestUnitsAreReadBySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: only TestUnits reads the units")
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no"}
	units, err := filepath.Glob("systemd/*")
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	dir := t.TempDir()
	for _, unit := range units {
		text := strings.ReplaceAll(read(t, unit), "/usr/bin/keyturn", program)
		path := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
	// What it says of other units of this machine is not of interest.
	if strings.Contains(string(out), dir) || strings.Contains(string(out), "keyturn") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestContainerfile(t *testing.T) {
	text := read(t, "Containerfile")
	i := strings.LastIndex(text, "\nFROM ")
	if i < 0 {
		t.Fatal("there is one stage, or none")
	}
	build, final := text[:i], text[i+1:]
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if version == nil || !strings.Contains(build, "/golang:"+version[1]+" ") {
		t.Errorf("it does not build with go.mod's Go, %v", version)
	}
	for _, want := range []string{
		"FROM gcr.io/distroless/static-debian12:nonroot\n",
		"ENV KEYTURN_DATA=/var/lib/keyturn\n",
		"VOLUME /var/lib/keyturn\n",
		"USER 65532:65532\n",
		"ENTRYPOINT [\"/usr/bin/keyturn\"]\n",
		"CMD [\"serve\"]\n",
	} {
		if !strings.Contains(final, want) {
			t.Errorf("the image lacks %q", want)
		}
	}
	if strings.Contains(final, "\nRUN ") {
		t.Error("the image has no shell that could run anything")
	}
}

// parse reads a unit: values by section and key, those of a repeated key joined by
// line breaks.
func parse(t *testing.T, path string) map[string]map[string]string {
	t.Helper()
	unit := make(map[string]map[string]string)
	section := ""
	for i, line := range strings.Split(read(t, path), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			if !slices.Contains([]string{"Unit", "Service", "Socket", "Timer", "Install"}, section) || unit[section] != nil {
				t.Fatalf("%s:%d: section %s is unknown, or there twice", path, i+1, section)
			}
			unit[section] = make(map[string]string)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" {
			t.Fatalf("%s:%d: %q is not KEY=VALUE in a section", path, i+1, line)
		}
		if old, ok := unit[section][key]; ok {
			value = old + "\n" + value
		}
		unit[section][key] = value
	}
	return unit
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
