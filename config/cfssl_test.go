// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
)

// again holds that a shared configuration is read as it is written.
func again(t *testing.T, c *config.Shared) {
	t.Helper()
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.ParseShared(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if diff := cmp.Diff(c, got, renewBefores); diff != "" {
		t.Errorf("%s in\n%s", diff, text)
	}
}

func TestCFSSL(t *testing.T) {
	for in, want := range map[string]config.CFSSL{
		"address: https://ca.example.com:8888": {Address: "https://ca.example.com:8888"},
		"address: http://127.0.0.1:8888, label: blue, profile: web, auth_key: 00112233": {
			Address: "http://127.0.0.1:8888", Label: "blue", Profile: "web", AuthKey: "00112233",
		},
		"address: https://ca, server_name: ca.example.com, auth_key_file: /run/key, cert_file: /c, key_file: /k": {
			Address: "https://ca", ServerName: "ca.example.com", AuthKeyFile: "/run/key", CertFile: "/c", KeyFile: "/k",
		},
	} {
		got, err := config.ParseShared(fmt.Appendf(nil, "issuers: {ca: {type: cfssl, %s}}", in))
		if err != nil {
			t.Errorf("%v in\n%s", err, in)
			continue
		}
		if diff := cmp.Diff(&want, got.Issuers["ca"].CFSSL); diff != "" {
			t.Errorf("%s in\n%s", diff, in)
		}
		again(t, got)
	}
}

func TestCFSSLRefuses(t *testing.T) {
	const address = "address: 'https://ca', "
	for in, want := range map[string]string{
		"profile: web":                             "line 1: issuers.ca.address: it is missing",
		"address: 'http://ca.example.com'":         "line 1: issuers.ca.address: \"http://ca.example.com\" is not https",
		"address: ca.example.com":                  "issuers.ca.address: it is not the URL of a CFSSL",
		"address: 'https://me:hunter2@ca'":         "issuers.ca.address: it is not the URL of a CFSSL",
		address + "auth_key: hunter2":              "issuers.ca.auth_key: it is not a key in hexadecimal",
		address + "auth_key: ''":                   "issuers.ca.auth_key: it is not a key in hexadecimal",
		address + "auth_key: 00, auth_key_file: f": "issuers.ca.auth_key_file: auth_key and auth_key_file are given",
		address + "cert_file: f":                   "issuers.ca.cert_file: cert_file and key_file belong together",
		address + "intermediates: hunter2":         "issuers.ca.intermediates: it is not PEM",
		address + "role: hunter2":                  "issuers.ca.role: unknown key; known here are type, address",
	} {
		_, err := config.ParseShared(fmt.Appendf(nil, "issuers: {ca: {type: cfssl, %s}}", in))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
	}
}
