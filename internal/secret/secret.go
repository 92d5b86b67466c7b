// SPDX-License-Identifier: Apache-2.0

// Package secret reads what a setting holds or points at: a process that has a
// disk names a file, and one that has none, such as a function in the cloud, gives
// the text in a variable or keeps it where its role may fetch it.
//
// A setting is one of these, tried in this order:
//
//   - The text itself: anything that contains "-----BEGIN" or a line break.
//   - arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, or awssm:NAME for one in
//     the region of the environment: a secret of AWS Secrets Manager.
//   - arn:aws:ssm:REGION:ACCOUNT:parameter/NAME: a parameter of the AWS Systems
//     Manager Parameter Store; a SecureString is decrypted.
//   - Else the path of a file that only its owner may reach.
//
// A reference to AWS may end in #KEY: then what is fetched is a JSON object, and the
// text is its field KEY, a string. Credentials and region are found as by every
// AWS tool: AWS_ACCESS_KEY_ID and its like, the shared files, the role of the
// function, container or instance. AWS_ENDPOINT_URL_SECRETS_MANAGER and
// AWS_ENDPOINT_URL_SSM lead elsewhere.
//
// No error and no origin holds any of the text.
package secret

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/durable"
)

// MaxSize bounds every text, in bytes: the most that AWS Secrets Manager keeps
// in one secret, and far more than an identity needs.
const MaxSize = 64 << 10

// maxPath is the longest path that Linux takes (PATH_MAX): what is longer was
// never meant as one, and may be a secret on one line.
const maxPath = 4096

// Inline is the origin of a text that the setting itself held.
const Inline = "the setting itself"

// Read returns the text that a setting holds or points at, and where it came
// from, for logs and for errors about the text: Inline, or the reference or path.
// The text is never empty. Fetching takes at most ten seconds.
func Read(ctx context.Context, value string) (text []byte, origin string, err error) {
	text, origin, err = read(ctx, value)
	if err != nil {
		return nil, "", fmt.Errorf("secret: %w", err)
	}
	if len(text) == 0 {
		return nil, "", fmt.Errorf("secret: %s is empty", origin)
	}
	if len(text) > MaxSize {
		return nil, "", fmt.Errorf("secret: %s is larger than the %d bytes that it may have", origin, MaxSize)
	}
	return text, origin, nil
}

func read(ctx context.Context, value string) (text []byte, origin string, err error) {
	switch {
	case value == "":
		return nil, "", errors.New("nothing is set: give a path, a reference, or the text")
	case strings.Contains(value, "-----BEGIN") || strings.Contains(value, "\n"):
		return []byte(value), Inline, nil
	case isReference(value):
		r, err := parseReference(value)
		if err != nil {
			return nil, "", err
		}
		text, err = r.fetch(ctx)
		return text, value, err
	case len(value) > maxPath:
		return nil, "", fmt.Errorf("a setting of %d characters on one line is neither a path nor a reference nor PEM", len(value))
	}
	text, err = durable.ReadPrivate(value, MaxSize)
	return text, value, err
}
