// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
)

// logger hands the server's messages to slog. A fatal one does not end the
// process: it is kept as the reason why the start failed.
type logger struct {
	to    *slog.Logger
	fatal atomic.Pointer[string]
}

var _ server.Logger = (*logger)(nil)

func newLogger(to *slog.Logger) *logger { return &logger{to: cmp.Or(to, slog.Default())} }

func (l *logger) log(level slog.Level, format string, v []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.to.Log(context.Background(), level, "nats: "+text)
	return text
}

// Notices are the server's small talk: debugging, for the reader of this log.
func (l *logger) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
func (l *logger) Debugf(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }
func (l *logger) Tracef(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }
func (l *logger) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }

func (l *logger) Errorf(format string, v ...any) {
	l.log(levelOf(fmt.Sprintf(format, v...)), format, v)
}

// handshakeError follows a client's address and number in what the server says of
// a TLS handshake that failed.
var handshakeError = regexp.MustCompile(`^\S+ - cid:\d+ - TLS handshake error: (.*)$`)

// levelOf returns at which level an error is told. A handshake that fails is the
// client's doing, and one that was not even tried, as where somebody only looks
// whether the port is open, of no interest.
func levelOf(text string) slog.Level {
	handshake := handshakeError.FindStringSubmatch(strings.TrimSpace(text))
	switch {
	case handshake == nil:
		return slog.LevelError
	case handshake[1] == io.EOF.Error(), strings.HasSuffix(handshake[1], syscall.ECONNRESET.Error()):
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func (l *logger) Fatalf(format string, v ...any) {
	text := l.log(slog.LevelError, format, v)
	l.fatal.Store(&text)
}

func (l *logger) lastFatal() string {
	if text := l.fatal.Load(); text != nil {
		return *text
	}
	return "no reason given"
}
