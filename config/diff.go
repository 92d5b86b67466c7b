// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A Change is one key whose value differs between two shared configurations.
type Change struct {
	Key string `json:"key"` // with the keys above it, as in issuers.internal.lifetime or zones["example.com"]
	// Old and New are the values; empty where the key is not there. A value that
	// is not known to be harmless is Hidden.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// Hidden stands for a value that may be a secret.
const Hidden = "(not shown)"

// String is "issuers.internal.lifetime: 30d -> 60d", or says that the key is
// only in one of the two.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return fmt.Sprintf("%s: %s is added", c.Key, c.New)
	case c.New == "":
		return fmt.Sprintf("%s: %s is removed", c.Key, c.Old)
	case c.Old == c.New:
		return fmt.Sprintf("%s: changed %s", c.Key, c.New)
	}
	return fmt.Sprintf("%s: %s -> %s", c.Key, c.Old, c.New)
}

// harmless are the keys whose values anybody may see; * is the name of an issuer
// a solver or a zone. A new key is a secret until it is here; the settings of
// solvers are in SolverTypes.
var harmless = []string{
	"default_issuer",
	"issuers.*.type", "issuers.*.name", "issuers.*.key", "issuers.*.lifetime", "issuers.*.max_lifetime",
	"issuers.*.root_lifetime", "issuers.*.intermediate_lifetime", "issuers.*.backdate",
	"issuers.*.permitted.dns", "issuers.*.permitted.ip", "issuers.*.permitted.uri",
	"issuers.*.excluded.dns", "issuers.*.excluded.ip", "issuers.*.excluded.uri",
	"issuers.*.policy.dns", "issuers.*.policy.ip", "issuers.*.policy.uri", "issuers.*.policy.groups", "issuers.*.policy.usages",
	"issuers.*.crl_url", "issuers.*.crl_lifetime",
	"issuers.*.directory", "issuers.*.terms_agreed", "issuers.*.contact", "issuers.*.profile",
	"issuers.*.preferred_chain", "issuers.*.challenge", "issuers.*.eab.key_id", "issuers.*.skip_caa",
	"issuers.*.limits.orders", "issuers.*.limits.domain", "issuers.*.limits.set", "issuers.*.limits.failures",
	"issuers.*.address", "issuers.*.namespace", "issuers.*.mount", "issuers.*.role", "issuers.*.server_name",
	"issuers.*.auth.method", "issuers.*.auth.mount", "issuers.*.auth.role", "issuers.*.auth.role_id",
	"issuers.*.auth.secret_id_file", "issuers.*.auth.token_file", "issuers.*.auth.cert_file", "issuers.*.auth.key_file",
	"issuers.*.label", "issuers.*.auth_key_file", "issuers.*.cert_file", "issuers.*.key_file",
	"issuers.*.arn", "issuers.*.template", "issuers.*.endpoint",
	"solvers.*.type", "solvers.*.propagation", "solvers.*.resolvers",
	"zones.*", "resolvers",
	"defaults.key", "defaults.lifetime", "defaults.renew_before", "defaults.issuers", "defaults.fallback_after",
}

// Diff returns what has to change in the shared configuration a so that it says
// what b does, by key; none where only comments, order or quotes differ. A
// whole issuer is each of its keys. Both must be as ParseShared wants them: what
// it refuses could be a secret that stands in a wrong place.
func Diff(a, b []byte) ([]Change, error) {
	from, err := leaves(a)
	if err != nil {
		return nil, err
	}
	to, err := leaves(b)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for key, old := range from {
		if now, ok := to[key]; !ok {
			changes = append(changes, Change{Key: key, Old: old.shown})
		} else if now.text != old.text {
			changes = append(changes, Change{Key: key, Old: old.shown, New: now.shown})
		}
	}
	for key, now := range to {
		if _, ok := from[key]; !ok {
			changes = append(changes, Change{Key: key, New: now.shown})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return changes, nil
}

// A leaf is a value that holds no others.
type leaf struct {
	text  string // what it is compared by
	shown string // never empty
}

// leaves returns the values of a shared configuration by their keys.
func leaves(text []byte) (map[string]leaf, error) {
	if _, err := ParseShared(text); err != nil {
		return nil, err
	}
	top, err := document(text)
	if err != nil {
		return nil, err
	}
	found := make(map[string]leaf)
	collect(found, nil, top)
	return found, nil
}

func collect(found map[string]leaf, path []string, n *yaml.Node) {
	var key string
	for _, k := range path {
		key = below(key, k)
	}
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) > 0:
		for i := 0; i+1 < len(n.Content); i += 2 {
			collect(found, append(slices.Clip(path), n.Content[i].Value), n.Content[i+1])
		}
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		var all []string
		for _, c := range n.Content {
			all = append(all, c.Value) // ParseShared takes no lists of anything else
		}
		found[key] = leaf{strings.Join(all, "\n"), show(path, strings.Join(all, ", "))}
	case n.Kind == yaml.ScalarNode:
		found[key] = leaf{n.Value, show(path, n.Value)}
	default:
		found[key] = leaf{kind(n), "nothing"}
	}
}

// show returns a value as anybody may see it.
func show(path []string, value string) string {
	if len(path) > 1 && path[0] != "defaults" {
		path = slices.Clone(path)
		path[1] = "*"
	}
	setting := len(path) == 3 && path[0] == "solvers" && harmlessSetting(path[2])
	switch {
	case !setting && !slices.Contains(harmless, strings.Join(path, ".")):
		return Hidden
	case setting && strings.ContainsAny(value, "@?"): // a URL with a password, or with a token behind it
		return Hidden
	case value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Sprintf("%q", value)
	}
	return value
}
