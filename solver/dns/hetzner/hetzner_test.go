// SPDX-License-Identifier: Apache-2.0

package hetzner_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/hetzner"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

// service answers as https://docs.hetzner.cloud/reference/cloud does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /v1/zones/example.test/rrsets/www.answers/TXT/actions/{action}", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[struct{ Records []struct{ Value string } }](t, r)
		values := s.Values()
		for _, record := range q.Records {
			value := strings.Trim(record.Value, `"`)
			switch r.PathValue("action") {
			case "add_records":
				values = append(values, value)
			case "remove_records":
				values = slices.DeleteFunc(values, func(v string) bool { return v == value })
			default:
				t.Errorf("the action %s", r.PathValue("action"))
			}
		}
		s.Set(values...)
		apitest.Write(w, 201, `{"action":{"id":7,"status":"running"}}`)
	})
	m.HandleFunc("GET /v1/actions/7", func(w http.ResponseWriter, _ *http.Request) {
		apitest.Write(w, 200, `{"action":{"id":7,"status":"success"}}`)
	})
	return apitest.Authorized(t, "Authorization", "Bearer token", m)
}

func TestService(t *testing.T) {
	var s apitest.Store
	client := apitest.Client(t, service(t, &s), "api.hetzner.cloud")
	apitest.Run(t, hetzner.New(hetzner.Config{APIToken: "token", HTTPClient: client}), &s)
}
