// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/nameserver"
)

// TestNameServer asks a real authoritative server.
func TestNameServer(t *testing.T) {
	records := []string{
		"www.example.test. 60 CNAME www.sub.example.test.",
		"example.test. 60 CAA 0 issue \"ca.example\"",
		"example.test. 60 CAA 128 iodef \"mailto:a@example.test\"",
		"alone.example.test. 60 CAA 0 issue \";\"",
	}
	var many []string
	for i := range 40 { // more than fits into one packet of UDP
		text := fmt.Sprintf("%02d%s", i, strings.Repeat("x", 100))
		many = append(many, text)
		records = append(records, "many.example.test. 60 TXT "+text)
	}
	s := nameserver.Start(t, nameserver.Options{
		Zones: []string{"example.test", "sub.example.test"}, Records: records,
		NameServers: []string{"127.0.0.1", "::1"},
	})
	r := New([]string{s.Addr()}).WithAuthoritativePort(s.Port())

	got, err := r.TXT(t.Context(), "many.example.test")
	if slices.Sort(got); err != nil || !slices.Equal(got, many) {
		t.Errorf("%d texts of %d, %v", len(got), len(many), err)
	}
	for name, want := range map[string]string{
		"example.test": "example.test", "a.b.example.test": "example.test", "many.example.test": "example.test",
		"sub.example.test": "sub.example.test", "_x.y.sub.example.test": "sub.example.test", "www.example.test": "example.test",
	} {
		if got, err := r.Zone(t.Context(), name); err != nil || got != want {
			t.Errorf("%s is in %q, %v; want %s", name, got, err, want)
		}
	}
	servers, err := r.NameServers(t.Context(), "example.test")
	want := fmt.Sprintf("[{ns1.example.test [127.0.0.1:%[1]s]} {ns2.example.test [[::1]:%[1]s]}]", s.Port())
	slices.SortFunc(servers, func(a, b NameServer) int { return strings.Compare(a.Name, b.Name) })
	if err != nil || fmt.Sprint(servers) != want {
		t.Errorf("%v, %v; want %s", servers, err, want)
	}
	for name, want := range map[string]string{
		"x.example.test": "2 at example.test", "alone.example.test": "1 at alone.example.test", "y.alone.example.test": "1 at alone.example.test",
	} {
		records, at, err := r.CAA(t.Context(), name)
		if got := fmt.Sprintf("%d at %s", len(records), at); err != nil || got != want {
			t.Errorf("CAA of %s: %s, %v; want %s", name, got, err, want)
		}
	}
	if got, err := r.TXT(t.Context(), "nothing.example.test"); err != nil || got != nil {
		t.Errorf("a name that is not there: %q, %v", got, err)
	}
	if _, err := r.TXT(t.Context(), "www.elsewhere.test"); err == nil || !strings.Contains(err.Error(), "REFUSED") {
		t.Errorf("a name of another zone: %v", err)
	}
}
