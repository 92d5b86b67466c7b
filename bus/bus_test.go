// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
)

func TestPositionText(t *testing.T) {
	for _, p := range []bus.Position{{}, {"log", 0}, {"a:b", 18446744073709551615}} {
		got, err := bus.ParsePosition(p.String())
		if err != nil || got != p {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, s := range []string{"", "x", ":1", "log:", "log:-1", "log:1x"} {
		if p, err := bus.ParsePosition(s); err == nil {
			t.Errorf("%q parsed as %v", s, p)
		}
	}
}

func TestCheckKey(t *testing.T) {
	for _, k := range []string{"a", "state/AZaz09_-", "a/b/c/d/e"} {
		if err := bus.CheckKey(k); err != nil {
			t.Error(err)
		}
	}
	for _, k := range []string{"", "/", "a/", "/a", "a//b", "a.b", "a/*", "a/>", "a b", "ä", "a/b/c/d/e/f", strings.Repeat("a", 201)} {
		if err := bus.CheckKey(k); !errors.Is(err, bus.ErrKey) {
			t.Errorf("%q: %v", k, err)
		}
	}
}

func TestInScope(t *testing.T) {
	for _, c := range []struct {
		key, scope string
		want       bool
	}{
		{"group/web/a", "group/web", true},
		{"group/web", "group/web", true},
		{"group/website/a", "group/web", false},
		{"group", "group/web", false},
	} {
		if bus.InScope(c.key, c.scope) != c.want {
			t.Error(c)
		}
	}
}
