// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLoggerStrangers holds that whoever connects and goes away again fills no log,
// and that what a client could not agree to is told, as no fault of the server.
func TestLoggerStrangers(t *testing.T) {
	for text, level := range map[string]string{
		"10.7.0.1:57376 - cid:45 - TLS handshake error: EOF":                                                                    "DEBUG",
		"10.7.0.1:5 - cid:4 - TLS handshake error: read tcp 10.7.0.1:36407->10.7.0.1:57384: read: connection reset by peer":     "DEBUG",
		"10.7.0.2:39661 - cid:40 - TLS handshake error: remote error: tls: bad certificate":                                     "WARN",
		"10.7.0.2:38373 - cid:42 - TLS handshake error: tls: client offered only unsupported versions: [303]":                   "WARN",
		"10.7.0.3:47756 - cid:57 - \"v1\" - \"user\" - Publish Violation - Subject \"x. - TLS handshake error: EOF of course\"": "ERROR",
	} {
		var out bytes.Buffer
		log := newLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		log.Errorf("%s", text)
		if !strings.Contains(out.String(), "level="+level+" ") {
			t.Errorf("want level %s:\n%s", level, out.String())
		}
	}
}
