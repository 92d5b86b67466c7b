// SPDX-License-Identifier: Apache-2.0

package crash

import "strings"

// What is done to a file on its way to its place, as package durable calls it.
var (
	replaced = []string{"opened", "written", "synced", "renamed", "named"}
	created  = []string{"opened", "written", "synced", "linked", "named"}
)

// files are those that are written, by their names, and what is done to each.
var files = map[string][]string{
	"identity.pem":   created,
	"host.pem":       created,
	"group.key":      append([]string{"renamed"}, created...), // later on, with the next key in it
	"instance":       created,
	"manager.creds":  created,
	"managers.pub":   replaced,
	"managers.event": replaced,
	"kind":           replaced,
	"pid":            replaced,
	"bus.id":         replaced,
	"bus.url":        replaced,
	"member.json":    replaced,
	"join.request":   replaced,
	"join.member":    replaced,
	"replica.creds":  replaced,
	"snapshot":       append([]string{"removed"}, replaced...),
}

// File returns the point at which something was done to a file: the base of its name,
// and what was done.
func File(name, done string) string { return "file/" + name + "/" + done }

// Files returns the points of all files.
func Files() []string {
	var list []string
	for name, steps := range files {
		for _, s := range steps {
			list = append(list, File(name, s))
		}
	}
	return list
}

// All returns all points.
func All() []string { return append(Code(), Files()...) }

// IsFile reports whether a point is one of a file's.
func IsFile(point string) bool { return strings.HasPrefix(point, "file/") }
