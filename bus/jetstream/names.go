// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// logName returns the name of the stream that holds a tenant's log.
func logName(tenant string) string { return "KEYTURN_" + tenant }

// boardName returns the name of the stream that holds a tenant's board.
func boardName(tenant string) string { return logName(tenant) + "_BOARD" }

// Streams returns the names of a tenant's streams, the log's first.
func Streams(tenant string) []string { return []string{logName(tenant), boardName(tenant)} }

// inboxPrefix is what the answers' subjects of a user start with. Each user may
// listen to his own only.
func inboxPrefix(user string) string { return "_INBOX_" + user }

// openWord stands in the subjects to which those write who are no managers; the
// other word is the managers' secret.
const openWord = "open"

// names are those of one of a tenant's two streams. An entry stands under a
// subject of its own and is written to another:
//
//	keyturn.TENANT.KEY._    ktput.TENANT.log.WORD.KEY._
//	ktboard.TENANT.KEY._    ktput.TENANT.board.WORD.KEY._
//
// and is said once more, when it stands there, to whoever listens at
//
//	ktnews.TENANT.log.KEY._
//	ktnews.TENANT.board.KEY._
//
// See the package comment for why.
type names struct {
	tenant string
	board  bool
}

func (n names) stream() string {
	if n.board {
		return boardName(n.tenant)
	}
	return logName(n.tenant)
}

// kept is what the subjects of entries start with.
func (n names) kept() string {
	if n.board {
		return "ktboard." + n.tenant + "."
	}
	return "keyturn." + n.tenant + "."
}

// what tells the two apart.
func (n names) what() string {
	if n.board {
		return "board"
	}
	return "log"
}

// written is what the subjects start with to which entries are written; a word
// and the key follow.
func (n names) written() string { return "ktput." + n.tenant + "." + n.what() + "." }

// news is what the subjects start with at which new entries are heard.
func (n names) news() string { return "ktnews." + n.tenant + "." + n.what() + "." }

// heard is the subject at which the new entries of a scope are heard that a pinned
// user follows.
func (n names) heard(scope string) string {
	if hasMany(scope) {
		return n.news() + dots(scope) + ".>"
	}
	return n.news() + dots(scope) + "._"
}

// open is the scope that needs no secret to be written.
func (n names) open() string {
	if n.board {
		return event.ReceiptScope
	}
	return event.JoinScope
}

// idSubject is where the log tells the stream's id.
func (n names) idSubject() string { return names{tenant: n.tenant}.kept() + "id." + n.what() }

func dots(key string) string { return strings.ReplaceAll(key, "/", ".") }

// filter returns the filter subject of a scope. It holds the scope where that is
// a key itself, too, since subjects of keys have one more part.
func (n names) filter(scope string) string { return n.kept() + dots(scope) + ".>" }

// subject returns the subject of a key's entry.
func (n names) subject(key string) string { return n.kept() + dots(key) + "._" }

// target returns the subject that a key is written to.
func (n names) target(word, key string) string { return n.written() + word + "." + dots(key) + "._" }

// key is the reverse of subject.
func (n names) key(subject string) (string, error) {
	s, ok := strings.CutPrefix(subject, n.kept())
	s, closed := strings.CutSuffix(s, "._")
	key := strings.ReplaceAll(s, ".", "/")
	if !ok || !closed {
		return "", fmt.Errorf("a message under the foreign subject %q", subject)
	}
	return key, bus.CheckKey(key)
}
