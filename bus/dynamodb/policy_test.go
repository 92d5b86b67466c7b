// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

const member = "M7bq2kXw3aE" // in the policies of the docs

// TestPolicies reads the IAM policies of the docs and holds that each allows all
// requests that its role makes, and that a host's allow none for what is not
// its own.
func TestPolicies(t *testing.T) {
	policies := readPolicies(t)
	policies["join"] = append(policies["join"], policies["replica"]...) // it is needed as well
	p := newProxy(t, dynamolocal.Shared(t))
	l := open(t, p.url(table(t, dynamolocal.Shared(t))), "")
	for _, key := range []string{"conf/managers", "conf/shared", "group/web/a", "group/api/a", "member/web/" + member, "member/api/x", "challenge/web", "challenge/api", "join/other", "state/a", "token/t"} {
		write(t, l, key, write(t, l, key, bus.Position{}, "1"), "2")
	}
	for _, key := range []string{"beacon/web", "beacon/api", "receipt/api/x/0"} {
		put(t, l, key)
	}
	fresh := p.url(table(t, dynamolocal.Shared(t)))
	open(t, fresh, "")
	for _, scope := range []string{"group", "state", "member", "join", "token", "conf", "challenge"} {
		readAll(t, l, scope)
	}
	readAll(t, l.Board(), "receipt")
	readAll(t, l.Board(), "beacon")
	for _, r := range p.requests() {
		if denied := policies["manager"].denied(r); denied != "" {
			t.Errorf("a manager may not %s", denied)
		}
	}

	for role, does := range map[string]map[string]func(t *testing.T){
		"replica": {
			"follow its certificates":  func(t *testing.T) { readAll(t, l, "group/web") },
			"follow its member":        func(t *testing.T) { readAll(t, l, "member/web/"+member) },
			"follow the managers":      func(t *testing.T) { readAll(t, l, "conf/managers") },
			"follow its challenges":    func(t *testing.T) { readAll(t, l, "challenge/web") },
			"read the managers":        func(t *testing.T) { get(t, l, "conf/managers") },
			"follow its beacon":        func(t *testing.T) { readAll(t, l.Board(), "beacon/web") },
			"put its receipt":          func(t *testing.T) { put(t, l, "receipt/web/"+member+"/0") },
			"!follow other groups":     func(t *testing.T) { readAll(t, l, "group/api") },
			"!follow all groups":       func(t *testing.T) { readAll(t, l, "group") },
			"!follow other challenges": func(t *testing.T) { readAll(t, l, "challenge/api") },
			"!follow all challenges":   func(t *testing.T) { readAll(t, l, "challenge") },
			"!write challenges":        func(t *testing.T) { write(t, l, "challenge/web", bus.Position{}, "2") },
			"!follow other members":    func(t *testing.T) { readAll(t, l, "member/api") },
			"!follow the state":        func(t *testing.T) { readAll(t, l, "state") },
			"!read the state":          func(t *testing.T) { get(t, l, "state/a") },
			"!read the configuration":  func(t *testing.T) { get(t, l, "conf/shared") },
			"!follow other beacons":    func(t *testing.T) { readAll(t, l.Board(), "beacon/api") },
			"!follow all beacons":      func(t *testing.T) { readAll(t, l.Board(), "beacon") },
			"!follow receipts":         func(t *testing.T) { readAll(t, l.Board(), "receipt") },
			"!put others' receipts":    func(t *testing.T) { put(t, l, "receipt/web/other/0") },
			"!put a beacon":            func(t *testing.T) { put(t, l, "beacon/web") },
			"!append to its own group": func(t *testing.T) { write(t, l, "group/web/forged", bus.Position{}, "x") },
			"!join":                    func(t *testing.T) { write(t, l, "join/forged", bus.Position{}, "x") },
		},
		"join": {
			"ask to join":       func(t *testing.T) { write(t, l, "join/"+member, bus.Position{}, "r") },
			"ask to join first": func(t *testing.T) { write(t, open(t, fresh, ""), "join/"+member, bus.Position{}, "r") },
			"follow its member": func(t *testing.T) { readAll(t, l, "member/web/"+member) },
			"!ask for another":  func(t *testing.T) { write(t, l, "join/another", bus.Position{}, "r") },
			"!read others":      func(t *testing.T) { get(t, l, "join/other") },
			"!read a token":     func(t *testing.T) { get(t, l, "token/t") },
			"!make a token":     func(t *testing.T) { write(t, l, "token/u", bus.Position{}, "x") },
			"!follow the state": func(t *testing.T) { readAll(t, l, "state") },
		},
	} {
		for what, do := range does {
			p.requests()
			do(t)
			requests := p.requests()
			if len(requests) == 0 {
				t.Errorf("%s: %s: no request was made", role, what)
			}
			denied := ""
			for _, r := range requests {
				if d := policies[role].denied(r); d != "" {
					denied = d
				}
			}
			if what, forbidden := strings.CutPrefix(what, "!"); forbidden == (denied == "") {
				t.Errorf("to %s, a %s: %q is denied", what, role, denied)
			}
		}
	}
}

func get(t *testing.T, l bus.Log, key string) {
	t.Helper()
	if _, err := l.Get(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, l bus.Boarder, key string) {
	t.Helper()
	if err := l.Board().Put(t.Context(), key, []byte(key)); err != nil {
		t.Fatal(err)
	}
}

// readAll follows up to the caught-up mark.
func readAll(t *testing.T, l interface {
	Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error]
}, scope string,
) {
	t.Helper()
	for u, err := range l.Follow(t.Context(), scope, bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			return
		}
	}
}

// A policy is what is looked at of an IAM policy. An element of it that is not
// here is an error.
type policy []statement

type statement struct {
	Effect    string
	Action    list
	Resource  list
	Condition struct {
		Equals keys              `json:"ForAllValues:StringEquals"`
		Like   keys              `json:"ForAllValues:StringLike"`
		Null   map[string]string // that there has to be a leading key
	}
}

type keys struct {
	Leading list `json:"dynamodb:LeadingKeys"`
}

// A list is one string, or many.
type list []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *list) UnmarshalJSON(text []byte) error {
	if text[0] == '[' {
		return json.Unmarshal(text, (*[]string)(l))
	}
	*l = make(list, 1)
	return json.Unmarshal(text, &(*l)[0])
}

var policyBlock = regexp.MustCompile("(?s)```json (\\w+)\n(.*?)```")

func readPolicies(t *testing.T) map[string]policy {
	t.Helper()
	page, err := os.ReadFile("../../docs/dynamodb.md")
	if err != nil {
		t.Fatal(err)
	}
	policies := make(map[string]policy)
	for _, m := range policyBlock.FindAllSubmatch(page, -1) {
		var document struct {
			Version   string
			Statement policy
		}
		d := json.NewDecoder(bytes.NewReader(m[2]))
		d.DisallowUnknownFields()
		if err := d.Decode(&document); err != nil || document.Version != "2012-10-17" {
			t.Fatalf("the policy %s: %v", m[1], err)
		}
		policies[string(m[1])] = document.Statement
	}
	return policies
}

// of is the policy for a group and a member other than the ones in the docs.
func (p policy) of(group, id string) policy {
	names := strings.NewReplacer("/web", "/"+group, member, id)
	own := slices.Clone(p)
	for i := range own {
		for _, keys := range []*list{&own[i].Condition.Equals.Leading, &own[i].Condition.Like.Leading} {
			*keys = slices.Clone(*keys)
			for j := range *keys {
				(*keys)[j] = names.Replace((*keys)[j])
			}
		}
	}
	return own
}

// denied returns what of a request the policy does not allow, "" if it allows
// all.
func (p policy) denied(r request) string {
	asked := accesses(r)
	if len(asked) == 0 {
		return r.operation + ", which the test does not understand"
	}
	for _, a := range asked {
		if !slices.ContainsFunc(p, func(s statement) bool { return s.allows(a) }) {
			return fmt.Sprintf("%s of %s%s", a.action, a.key, a.index)
		}
	}
	return ""
}

func (s statement) allows(a access) bool {
	key := slices.Contains(s.Condition.Equals.Leading, a.key) || slices.ContainsFunc(s.Condition.Like.Leading, func(pattern string) bool {
		prefix, wild := strings.CutSuffix(pattern, "*")
		return pattern == a.key || wild && strings.HasPrefix(a.key, prefix)
	})
	return key && s.Effect == "Allow" && slices.Contains(s.Action, "dynamodb:"+a.action) &&
		slices.ContainsFunc(s.Resource, func(arn string) bool { return strings.HasSuffix(arn, ":table/keyturn"+a.index) })
}

// An access is what IAM is asked about.
type access struct {
	action string
	key    string // the leading key
	index  string // "" or what stands behind the table in a resource
}

// accesses takes a request apart.
func accesses(r request) []access {
	pk := func(item any) string { return value(item.(map[string]any)["pk"]) }
	switch r.operation {
	case "GetItem":
		return []access{{r.operation, pk(r.body["Key"]), ""}}
	case "PutItem":
		return []access{{r.operation, pk(r.body["Item"]), ""}}
	case "Query":
		condition := r.body["KeyConditionExpression"].(string)
		name := strings.Fields(condition)[2] // "pk = :name AND …"
		a := access{action: r.operation, key: value(r.body["ExpressionAttributeValues"].(map[string]any)[name])}
		if index, ok := r.body["IndexName"].(string); ok {
			a.index = "/index/" + index
		}
		return []access{a}
	case "BatchGetItem":
		var all []access
		for _, of := range r.body["RequestItems"].(map[string]any) {
			for _, key := range of.(map[string]any)["Keys"].([]any) {
				all = append(all, access{r.operation, pk(key), ""})
			}
		}
		return all
	case "TransactWriteItems":
		var all []access
		for _, i := range r.body["TransactItems"].([]any) {
			for kind, what := range i.(map[string]any) {
				of := what.(map[string]any)
				switch kind {
				case "Put":
					all = append(all, access{"PutItem", pk(of["Item"]), ""})
				case "Delete":
					all = append(all, access{"DeleteItem", pk(of["Key"]), ""})
				case "ConditionCheck":
					all = append(all, access{"ConditionCheckItem", pk(of["Key"]), ""})
				default:
					return nil
				}
			}
		}
		return all
	}
	return nil
}

// value returns a string of DynamoDB's JSON.
func value(v any) string { return v.(map[string]any)["S"].(string) }
