// SPDX-License-Identifier: Apache-2.0

package gandi_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/gandi"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

// service answers as https://api.gandi.net/docs/livedns/ does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	const path = " /v5/livedns/domains/example.test/records/www.answers/TXT"
	m := http.NewServeMux()
	m.HandleFunc("GET"+path, func(w http.ResponseWriter, _ *http.Request) {
		values := s.Values()
		if len(values) == 0 {
			apitest.Write(w, 404, `{"message":"not found"}`)
			return
		}
		apitest.Write(w, 200, `{"rrset_ttl":300,"rrset_values":[`+strconv.Quote(values[0])+`]}`)
	})
	m.HandleFunc("PUT"+path, func(w http.ResponseWriter, r *http.Request) {
		s.Set(apitest.Read[struct {
			Values []string `json:"rrset_values"`
		}](t, r).Values...)
		apitest.Write(w, 201, `{"message":"DNS Record Created"}`)
	})
	m.HandleFunc("DELETE"+path, func(w http.ResponseWriter, _ *http.Request) {
		s.Set()
		w.WriteHeader(204)
	})
	return apitest.Authorized(t, "Authorization", "Bearer token", m)
}

func TestService(t *testing.T) {
	var s apitest.Store
	client := apitest.Client(t, service(t, &s), "api.gandi.net")
	apitest.Run(t, gandi.New(gandi.Config{AccessToken: "token", HTTPClient: client}), &s)
}
