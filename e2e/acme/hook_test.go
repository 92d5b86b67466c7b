// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/nameserver"
	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/rfc2136"
)

const (
	// hookCommand makes the test's program the one that sets records for the solver of
	// type exec: "acme.test set-record URL present|cleanup FQDN VALUE".
	hookCommand = "set-record"
	hookSecret  = "a secret of the test and of keyturn"
)

// A change is what is wanted of a zone. It has the form of what is posted to webhooks.
type change struct {
	Action string `json:"action"`
	FQDN   string `json:"fqdn"`
	Value  string `json:"value"`
	Zone   string `json:"zone"`
}

// hook asks the test to change a zone, and returns an exit code.
func hook(args []string) int {
	if len(args) != 4 {
		fmt.Fprintf(os.Stderr, "want URL ACTION FQDN VALUE: %q\n", args)
		return 2
	}
	body, err := json.Marshal(change{args[1], args[2], args[3], os.Getenv("KEYTURN_ZONE")})
	if err == nil {
		var resp *http.Response
		if resp, err = http.Post(args[0], "application/json", bytes.NewReader(body)); err == nil {
			defer resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return 0
			}
			err = fmt.Errorf("%s", resp.Status)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// hooks is what an operator runs who has records set by a program, at /exec, and by a
// web hook, at /webhook: it brings them to the name server.
type hooks struct {
	url  string
	zone dns.Provider

	mu     sync.Mutex
	called map[change]int // guarded by mu; by action and FQDN
}

func startHooks(t *testing.T, s *nameserver.Server) *hooks {
	t.Helper()
	zone, err := rfc2136.New(rfc2136.Config{Server: s.Addr(), KeyName: s.KeyName, KeySecret: dns.Secret(s.KeySecret)})
	if err != nil {
		t.Fatal(err)
	}
	h := &hooks{zone: zone, called: make(map[change]int)}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil || r.URL.Path == "/webhook" && !signed(r.Header, body) {
		http.Error(w, "no signature that is right", http.StatusForbidden)
		return
	}
	var c change
	if err := json.Unmarshal(body, &c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	record := dns.Record{Name: strings.TrimSuffix(c.FQDN, "."), Value: c.Value, Zone: strings.TrimSuffix(c.Zone, ".")}
	do := h.zone.Present
	if c.Action == "cleanup" {
		do = h.zone.CleanUp
	}
	if err := do(r.Context(), record); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.called[change{Action: c.Action, FQDN: c.FQDN}]++
}

// signed reports whether a web hook was called by who knows the secret.
func signed(header http.Header, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(mac, "%s.%s", header.Get("Keyturn-Timestamp"), body)
	return hmac.Equal([]byte(header.Get("Keyturn-Signature")), []byte("v1="+hex.EncodeToString(mac.Sum(nil))))
}

// calls returns how often an action was asked for, for a name of a certificate.
func (h *hooks) calls(action, name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.called[change{Action: action, FQDN: "_acme-challenge." + strings.TrimPrefix(name, "*.") + "."}]
}
