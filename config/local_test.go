// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
)

func TestParseLocal(t *testing.T) {
	for in, want := range map[string]config.Local{
		"":        {},
		"# c\n":   {},
		"{}":      {},
		"data: x": {Data: "x"},
		"data: /var/lib/keyturn\nnats: 127.0.0.1:0\nhttp: '[::1]:8080'\nlog_format: json\nlog_level: warn\n": {
			Data: "/var/lib/keyturn", NATS: "127.0.0.1:0", HTTP: "[::1]:8080", Log: config.Log{Format: "json", Level: "warn"},
		},
		"nats: :4222\nhttp: localhost:80": {NATS: ":4222", HTTP: "localhost:80"},
		"tenant: red\nbus: tls://bus.test:4222\nadvertise: bus.test,10.0.0.1,2001:db8::1\ncheck_in: https://x.test/id{|/fail}\ncheck_in_ttl: 30m": {
			Tenant: "red", Bus: "tls://bus.test:4222", Advertise: "bus.test,10.0.0.1,2001:db8::1",
			CheckIn: config.CheckIn{URL: "https://x.test/id{|/fail}", TTL: "30m"},
		},
	} {
		got, err := config.ParseLocal([]byte(in))
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}

func TestParseLocalRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"dat: x":                    "line 1: dat: unknown key; known here are data, tenant, bus, bus_monitor, nats, tenants, advertise, http, check_in, check_in_ttl, log_format, log_level",
		"\ndata: x\ndata: y":        "line 3: data: the key is here twice; the first is on line 2",
		"data:":                     "line 1: data: the key has no value",
		"data: ''":                  "line 1: data: it is empty",
		"data: [x]":                 "line 1: data: here must be one value, not a list",
		"data: 12":                  "line 1: data: here must be text, not a number",
		"nats: 4222":                `line 1: nats: here must be text, not a number`,
		"nats: localhost":           `line 1: nats: "localhost" is not an address to listen on`,
		"nats: localhost:70000":     `line 1: nats: "localhost:70000" has no port from 0 to 65535`,
		"nats: localhost:http":      "has no port",
		"http: ::1:80":              "is not an address to listen on",
		"http: ''":                  "is not an address to listen on",
		"tenant: Red":               `line 1: tenant: "Red" is not a name`,
		"bus: example.com:4222":     "line 1: bus: it is not a URL of a bus",
		"bus: http://u:secret@h":    "it is not a URL of a bus: nats://HOST:PORT",
		"tenants: red,Blue":         `line 1: tenants: "Blue" is not a name`,
		"advertise: a,,b":           `"a,,b" is not a list of host names`,
		"advertise: a:4222":         "is not a list of host names",
		"check_in: http://x.test/":  "it has to start with https://",
		"check_in: x":               "it is not a URL",
		"check_in_ttl: 1s":          "1s is less than a minute",
		"log_format: xml":           `line 1: log_format: "xml" is not one of text, json`,
		"log_level: INFO":           `line 1: log_level: "INFO" is not one of debug, info, warn, error`,
		"data: &x y":                "anchors",
		"[data]":                    "here must be keys with values",
		"data: x\n---\ndata: y\n":   "second YAML document",
		strings.Repeat(" ", 300000): "at most",
	} {
		got, err := config.ParseLocal([]byte(in))
		var one *config.Error
		if got != nil || !errors.As(err, &one) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q:\n got %v\nwant %s", in, err, want)
		}
	}
}

func TestSources(t *testing.T) {
	env := func(m map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
	}
	fallback := config.Local{Data: "/default", NATS: "127.0.0.1:4222", HTTP: "127.0.0.1:8080", Log: config.Log{Format: "text", Level: "info"}}
	file, err := config.ParseLocal([]byte("data: /file\nnats: 127.0.0.1:1\nlog_level: warn\n"))
	if err != nil {
		t.Fatal(err)
	}
	for title, test := range map[string]struct {
		in   config.Sources
		want config.Local
		errs []string
	}{
		"defaults": {in: config.Sources{Default: fallback}, want: fallback},
		"each counts before the next": {
			in: config.Sources{
				Flags:     map[string]string{"data": "/flag", "edge": "unrelated"},
				LookupEnv: env(map[string]string{"KEYTURN_DATA": "/env", "KEYTURN_NATS": "127.0.0.1:2", "KEYTURN_LOG_FORMAT": "json"}),
				File:      file,
				Default:   fallback,
			},
			want: config.Local{Data: "/flag", NATS: "127.0.0.1:2", HTTP: "127.0.0.1:8080", Log: config.Log{Format: "json", Level: "warn"}},
		},
		"empty variables are not set": {
			in:   config.Sources{LookupEnv: env(map[string]string{"KEYTURN_DATA": ""}), File: file, Default: fallback},
			want: config.Local{Data: "/file", NATS: "127.0.0.1:1", HTTP: "127.0.0.1:8080", Log: config.Log{Format: "text", Level: "warn"}},
		},
		"each wrong value is named": {
			in: config.Sources{
				Flags:     map[string]string{"log-level": "loud", "data": ""},
				LookupEnv: env(map[string]string{"KEYTURN_LOG_FORMAT": "xml", "KEYTURN_LOG_LEVEL": "never looked at"}),
			},
			errs: []string{`--log-level: "loud" is not one of`, `--data: it is empty`, `KEYTURN_LOG_FORMAT: "xml"`},
		},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := test.in.Local()
			for _, want := range test.errs {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v; want %s", err, want)
				}
			}
			if test.errs != nil {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseLocal(f *testing.F) {
	f.Add([]byte("data: /var/lib/keyturn\nnats: 127.0.0.1:0\nhttp: '[::1]:8080'\nlog_format: json\nlog_level: warn\n"))
	f.Add([]byte("data: &x *x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := config.ParseLocal(text)
		if err != nil {
			if l != nil {
				t.Error("a configuration beside an error")
			}
			return
		}
		if _, err := (config.Sources{File: l}).Local(); err != nil {
			t.Errorf("what was read is refused: %v", err)
		}
	})
}
