// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
)

func TestDiff(t *testing.T) {
	const a = `# the first
issuers:
  internal:
    type: local
    lifetime: 30d
    name: "A"
  old: {type: local, backdate: 5m}
default_issuer: internal
defaults: {}
`
	for title, test := range map[string]struct {
		b    string
		want []string
	}{
		"the same":      {a, nil},
		"only the form": {"default_issuer: 'internal'\nissuers: {old: {type: local, backdate: 5m}, internal: {type: local, lifetime: 30d, name: A}} # x\ndefaults: {}\n", nil},
		"a value": {
			strings.Replace(a, "30d", "60d", 1),
			[]string{"issuers.internal.lifetime: 30d -> 60d"},
		},
		"an issuer less, and one more": {
			"default_issuer: internal\nissuers: {internal: {type: local, lifetime: 30d, name: A}, new: {type: local}}\ndefaults: {}\n",
			[]string{"issuers.new.type: local is added", "issuers.old.backdate: 5m is removed", "issuers.old.type: local is removed"},
		},
		"a mapping filled": {
			strings.Replace(a, "defaults: {}", "defaults: {renew_before: 33%}", 1),
			[]string{"defaults: nothing is removed", "defaults.renew_before: 33% is added"},
		},
		"what does not print": {
			strings.Replace(a, `"A"`, `"\e[2J"`, 1),
			[]string{`issuers.internal.name: A -> "\x1b[2J"`},
		},
		"an empty text": {
			strings.Replace(a, `"A"`, `""`, 1),
			[]string{`issuers.internal.name: A -> ""`},
		},
		"lists": {
			a[:len(a)-len("defaults: {}\n")] + "defaults: {issuers: [internal, old]}\nzones: {example.com: bus, .: [bus]}\nresolvers: [192.0.2.1, 192.0.2.2]\n",
			[]string{
				"defaults: nothing is removed", "defaults.issuers: internal, old is added",
				"resolvers: 192.0.2.1, 192.0.2.2 is added", `zones["."]: bus is added`, `zones["example.com"]: bus is added`,
			},
		},
	} {
		t.Run(title, func(t *testing.T) {
			changes, err := config.Diff([]byte(a), []byte(test.b))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				got = append(got, c.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDiffRefuses: what is no configuration could have its secrets anywhere.
func TestDiffRefuses(t *testing.T) {
	const good = "issuers: {a: {type: local}}"
	for _, bad := range []string{"", "issuers: {}", "issuers: {a: {type: local, password: hunter2}}", "hunter2"} {
		for _, pair := range [][2]string{{good, bad}, {bad, good}} {
			changes, err := config.Diff([]byte(pair[0]), []byte(pair[1]))
			if err == nil || changes != nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v, %v", pair, changes, err)
			}
		}
	}
}

// TestDiffHidesSecrets: what is one, or could be, is not shown.
func TestDiffHidesSecrets(t *testing.T) {
	const a = "issuers: {a: {type: local}}\n"
	_, key := newKey(t, issuer.ECDSAP256)
	b := "issuers:\n  a:\n    type: acme\n    directory: https://ca.example.com\n    eab: {key_id: kid, hmac_key: aHVudGVyMg}\n" +
		"    account_key: " + indented(key, 6) + "    roots: " + indented(newCertificate(t), 6)
	changes, err := config.Diff([]byte(a), []byte(b))
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Change{
		{Key: "issuers.a.account_key", New: config.Hidden},
		{Key: "issuers.a.directory", New: "https://ca.example.com"},
		{Key: "issuers.a.eab.hmac_key", New: config.Hidden},
		{Key: "issuers.a.eab.key_id", New: "kid"},
		{Key: "issuers.a.roots", New: config.Hidden},
		{Key: "issuers.a.type", Old: "local", New: "acme"},
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("issuers: {a: {type: local, lifetime: 30d}}"), []byte("issuers: {a: {type: local}, b: {type: local, name: x}}\ndefault_issuer: a\n"))
	f.Add([]byte("issuers: {a: {type: local}}\ndefaults: {}\n"), []byte("issuers: {a: {type: local}}\ndefaults: {key: ed25519}\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		changes, err := config.Diff(a, b)
		if err != nil {
			return
		}
		from, err := config.ParseShared(a)
		if err != nil {
			t.Fatal(err)
		}
		to, err := config.ParseShared(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes) == 0 && cmp.Diff(from, to, renewBefores) != "" {
			t.Errorf("no change, and they differ:\n%s", cmp.Diff(from, to, renewBefores))
		}
		for _, c := range changes {
			if c.Old == "" && c.New == "" {
				t.Errorf("%q", c)
			}
		}
		back, err := config.Diff(b, a)
		if err != nil || len(back) != len(changes) {
			t.Errorf("%v; one way %v, the other %v", err, changes, back)
		}
		for i := range back {
			if back[i].Key != changes[i].Key || back[i].Old != changes[i].New || back[i].New != changes[i].Old {
				t.Errorf("one way %v, the other %v", changes[i], back[i])
			}
		}
	})
}
