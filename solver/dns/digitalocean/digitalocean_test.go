// SPDX-License-Identifier: Apache-2.0

package digitalocean_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/digitalocean"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

// service answers as https://docs.digitalocean.com/reference/api does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /v2/domains/example.test/records", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[struct{ Name, Type, Data string }](t, r)
		if q.Name != apitest.Name+"." || q.Type != "TXT" {
			t.Errorf("%+v is set", q)
		}
		apitest.Write(w, 201, fmt.Sprintf(`{"domain_record":{"id":%d}}`, s.Add(q.Data)))
	})
	m.HandleFunc("DELETE /v2/domains/example.test/records/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id, err := strconv.Atoi(r.PathValue("id")); err != nil || !s.Delete(id) {
			apitest.Write(w, 404, `{"id":"not_found","message":"not found"}`)
			return
		}
		w.WriteHeader(204)
	})
	return apitest.Authorized(t, "Authorization", "Bearer token", m)
}

func TestService(t *testing.T) {
	var s apitest.Store
	client := apitest.Client(t, service(t, &s), "api.digitalocean.com")
	apitest.Run(t, digitalocean.New(digitalocean.Config{APIToken: "token", HTTPClient: client}), &s)
}
