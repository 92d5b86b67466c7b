// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
)

// marker is in every text that the tests keep, and must be in no error.
const marker = "hunter2"

// wantError fails unless the error has all parts, and none of the text.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error %q has no %q", err, part)
		}
	}
	if strings.Contains(err.Error(), marker) {
		t.Errorf("the error tells the secret: %q", err)
	}
}

func TestInline(t *testing.T) {
	for _, text := range []string{
		"-----BEGIN KEY-----\n" + marker + "\n-----END KEY-----\n",
		"-----BEGIN KEY----- " + marker + " -----END KEY-----", // what a shell without quotes makes of it
		"\n-----BEGIN KEY-----\n" + marker,
		"first " + marker + "\nsecond",
	} {
		got, origin, err := secret.Read(t.Context(), text)
		if err != nil || string(got) != text {
			t.Errorf("Read(%q) = %q, %v; want the same text", text, got, err)
		}
		if origin != secret.Inline {
			t.Errorf("the origin is %q, want %q", origin, secret.Inline)
		}
	}
	_, _, err := secret.Read(t.Context(), marker+strings.Repeat("\n", secret.MaxSize))
	wantError(t, err, secret.Inline, "65536 bytes")
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.pem")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(marker, 0o600)
	text, origin, err := secret.Read(t.Context(), path)
	if err != nil || string(text) != marker || origin != path {
		t.Errorf("Read = %q, %q, %v; want the text of %s", text, origin, err, path)
	}

	write(marker, 0o640)
	_, _, err = secret.Read(t.Context(), path)
	wantError(t, err, path, "chmod 600")

	write("", 0o600)
	_, _, err = secret.Read(t.Context(), path)
	wantError(t, err, path, "is empty")

	write(strings.Repeat(marker, secret.MaxSize/len(marker)+1), 0o600)
	_, _, err = secret.Read(t.Context(), path)
	wantError(t, err, path, "65536 bytes")

	_, _, err = secret.Read(t.Context(), path+".missing")
	wantError(t, err, path+".missing", "no such file")
}

func TestNeither(t *testing.T) {
	_, _, err := secret.Read(t.Context(), "")
	wantError(t, err, "nothing is set")
	_, _, err = secret.Read(t.Context(), strings.Repeat(marker, 1000))
	wantError(t, err, "7000 characters")
}

func TestBadReferences(t *testing.T) {
	for value, part := range map[string]string{
		"arn:aws:secretsmanager":                          "not an ARN",
		"arn:aws:s3:eu-west-1:123456789012:secret:a":      "neither",
		"arn:aws:secretsmanager:eu-west-1:123456789012:a": "neither",
		"arn:aws:secretsmanager:eu-west-1:1:secret:":      "neither",
		"arn:aws:secretsmanager::123456789012:secret:a":   "neither",
		"arn:aws:ssm:eu-west-1:123456789012:document/a":   "neither",
		"arn:aws:ssm:eu-west-1:123456789012:parameter/a#": "no key",
		"awssm:":     "no name",
		"awssm:#key": "no name",
		"arn:aws:secretsmanager:eu-west-1:1:parameter/thing": "neither",
	} {
		_, _, err := secret.Read(t.Context(), value)
		wantError(t, err, value, part)
	}
}
