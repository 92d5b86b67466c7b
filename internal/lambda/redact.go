// SPDX-License-Identifier: Apache-2.0

package lambda

import (
	"os"
	"regexp"
	"strings"
)

const redacted = "[redacted]"

// secretVariables hold the credentials of the function's role.
var secretVariables = []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

var (
	// pemKey is a private key in PEM (RFC 7468), or what is left of one that was cut off.
	pemKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*-----|$)`)
	// userInfo is the name and password, or the token, in a URL.
	userInfo = regexp.MustCompile(`://[^/?#@\s"]+@`)
)

// Redact takes private keys, user names and passwords in URLs, and the credentials of the
// function's role out of a text: an error is shown to everyone who may call the
// function or read its log.
func Redact(text string) string {
	text = pemKey.ReplaceAllString(text, redacted)
	text = userInfo.ReplaceAllString(text, "://"+redacted+"@")
	for _, name := range secretVariables {
		if value := os.Getenv(name); value != "" {
			text = strings.ReplaceAll(text, value, redacted)
		}
	}
	return text
}
