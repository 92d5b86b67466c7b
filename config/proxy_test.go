// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
)

// enough is what a proxy cannot do without.
var enough = map[string][]string{"to": {"localhost:80"}, "cert": {"c"}, "key": {"k"}}

func TestProxyDefaults(t *testing.T) {
	p, err := config.ProxySources{Flags: enough}.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Listen, []string{":443"}) || p.Admin != "127.0.0.1:9180" || p.DrainTimeout != 30*time.Second || p.MaxBody != 0 || p.MaxHeader != 64<<10 ||
		p.ClientAuth != "none" || p.KeyType != issuer.ECDSAP256 || p.Reuseport || p.Log.Level != "info" {
		t.Errorf("%+v", p)
	}
}

// TestProxyOrder sets each setting in the file, by its variable and by its flag: whichever
// is nearer counts.
func TestProxyOrder(t *testing.T) {
	values := map[string][3]string{
		"listen": {":1", ":2", ":3"}, "admin": {"127.0.0.1:1", "127.0.0.1:2", "none"}, "key_type": {"rsa-2048", "ed25519", "ecdsa-p384"},
		"client_auth": {"none", "none", "none"}, "identity_header": {"X-A", "X-B", "X-C"}, "trust_forwarded": {"10.0.0.0/8", "192.0.2.1", "::1"},
		"max_body": {"1", "1KiB", "none"}, "max_header": {"1KiB", "2KiB", "1MiB"}, "reuseport": {"true", "false", "true"}, "admin_remote": {"true", "false", "false"},
		"drain_delay": {"1s", "2s", "1d"}, "stall_timeout": {"1s", "none", "3s"}, "answer_timeout": {"1s", "none", "3s"}, "target_idle": {"1s", "none", "3s"},
		"log_format": {"text", "json", "text"}, "log_level": {"warn", "error", "debug"},
	}
	for _, s := range config.ProxySettings() {
		v, ok := values[s.Key]
		switch {
		case ok:
		case strings.HasSuffix(s.Default, "s") || strings.HasSuffix(s.Default, "m"):
			v = [3]string{"1s", "2s", "3s"}
		case s.Key == "to":
			v = [3]string{"a:1", "a:2", "a:3"}
		default:
			continue // what goes with others is in TestProxyTogether
		}
		var got []string
		sources := config.ProxySources{Flags: map[string][]string{"to": enough["to"], "cert": enough["cert"], "key": enough["key"]}}
		if s.Key == "to" {
			delete(sources.Flags, "to")
		}
		for i, value := range v {
			switch i {
			case 0:
				sources.File = fmt.Appendf(nil, "%s: %q\n", s.Key, value)
			case 1:
				sources.Environ = []string{"PATH=/", s.Variable() + "=" + value}
			case 2:
				sources.Flags[s.Flag()] = []string{value}
			}
			p, err := sources.Proxy()
			if err != nil {
				t.Fatalf("%s: %v", s.Key, err)
			}
			got = append(got, fmt.Sprintf("%+v", *p))
		}
		if v[0] != v[1] && got[0] == got[1] || v[1] != v[2] && got[1] == got[2] {
			t.Errorf("%s: one of the sources does not count:\n%s", s.Key, strings.Join(got, "\n"))
		}
	}
}

func TestProxyFile(t *testing.T) {
	p, err := config.ProxySources{File: []byte(`
listen: [127.0.0.1:1, "[::1]:2"]
to: unix:/run/app.sock
issuer: {type: acme, directory: letsencrypt, terms_agreed: true}
name: "*.example.com"
trust_forwarded: [10.0.0.0/8, 192.0.2.1]
reuseport: true
`)}.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}
	if len(p.Listen) != 2 || p.Issuer.ACME.Directory != "letsencrypt" || !slices.Equal(p.TrustForwarded, want) || !slices.Equal(p.Names, []string{"*.example.com"}) || !p.Reuseport {
		t.Errorf("%+v", p)
	}
	for in, want := range map[string]string{
		"to: [a]":                  "line 1: to: here must be one value, not a list",
		"to:":                      "line 1: to: the key has no value",
		"listen: [a, b]":           `line 1: listen: "a" is not an address`,
		"listen: {a: b}":           "line 1: listen",
		"issuer: vault":            "line 1: issuer: here must be keys with values, not a text",
		"issuer_set: [a=b]":        "line 1: issuer_set: unknown key",
		"issuer: {type: nonsense}": `line 1: issuer.type: "nonsense" is not a type of issuer`,
		"drain_timeout: 5":         "line 1: drain_timeout",
		"a: b":                     "line 1: a: unknown key",
		"x":                        "line 1: here must be keys",
	} {
		_, err := config.ProxySources{File: []byte(in)}.Proxy()
		var file *config.FileError
		var one *config.Error
		if !errors.As(err, &file) || !errors.As(err, &one) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", in, err, want)
		}
	}
}

// TestProxyIssuer reads the same issuer from a file, from flags and from variables.
func TestProxyIssuer(t *testing.T) {
	flags := func(set ...string) map[string][]string {
		return map[string][]string{"to": {"a:1"}, "name": {"a.example"}, "issuer": {"acme"}, "issuer-set": set}
	}
	settings := []string{"directory=https://ca.example/dir", "terms_agreed=true", "contact=[a@example.com, b@example.com]", "limits.orders=300/3h"}
	var got []*config.ACME
	for _, s := range []config.ProxySources{
		{Flags: flags(settings...)},
		{Environ: []string{
			"KEYTURN_PROXY_TO=a:1", "KEYTURN_PROXY_NAME=a.example", "KEYTURN_PROXY_ISSUER=acme",
			"KEYTURN_PROXY_ISSUER_SET=directory=https://ca.example/dir,terms_agreed=true,contact=a@example.com,limits.orders=300/3h",
		}},
		{File: []byte("to: a:1\nname: a.example\nissuer:\n  type: acme\n  directory: https://ca.example/dir\n  terms_agreed: true\n  contact: [a@example.com, b@example.com]\n  limits: {orders: 300/3h}\n")},
	} {
		p, err := s.Proxy()
		if err != nil {
			t.Fatal(err)
		}
		if p.Issuer.ACME.Directory != "https://ca.example/dir" || !p.Issuer.ACME.TermsAgreed || p.Issuer.ACME.Contact[0] != "a@example.com" || p.Issuer.ACME.Limits == nil {
			t.Errorf("%+v", p.Issuer.ACME)
		}
		got = append(got, p.Issuer.ACME)
	}
	if diff := cmp.Diff(got[0], got[2]); diff != "" {
		t.Error(diff)
	}
	for set, want := range map[string]string{
		"directory":                           "is not KEY=VALUE",
		"=x":                                  "is not KEY=VALUE",
		"a b=x":                               "is not KEY=VALUE",
		"directory=x\ny: z":                   "a value is one line",
		"directory=":                          "directory: the key has no value",
		"type=local":                          "type: it is here twice",
		"eab=x":                               "eab: here must be keys",
		"bogus=1":                             "bogus: unknown key",
		"eab.key_id=x,eab.hmac_key=c2VjcmV0":  "a secret is no argument",
		"directory.x=1,directory=letsencrypt": "directory",
		"directory=letsencrypt,directory.below=1": "directory.below: it is here twice, or above another",
	} {
		list := strings.Split(set, ",")
		if !strings.HasPrefix(set, "directory") {
			list = append(list, "directory=letsencrypt", "terms_agreed=true")
		}
		_, err := config.ProxySources{Flags: flags(list...)}.Proxy()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "line ") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%q: %v; want %s", set, err, want)
		}
	}
	for _, kind := range []string{"", "a: b", "acme\nx: y", "[acme]"} {
		if _, err := (config.ProxySources{Flags: map[string][]string{"issuer": {kind}}}).Proxy(); err == nil || !strings.Contains(err.Error(), "is not a type of issuer") {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

func TestReadIssuer(t *testing.T) {
	i, err := config.ReadIssuer([]byte("type: local\nname: Example\n"))
	if err != nil || i.Type != "local" || i.Local.Name != "Example" {
		t.Errorf("%+v, %v", i, err)
	}
	for in, want := range map[string]string{"": "has no type", "type: x": "not a type", "type: local\na: b": "line 2: a: unknown key", "x": "keys with values"} {
		if _, err := config.ReadIssuer([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
