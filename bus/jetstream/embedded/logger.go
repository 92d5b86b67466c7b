// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

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
func (l *logger) Errorf(format string, v ...any)  { l.log(slog.LevelError, format, v) }

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
