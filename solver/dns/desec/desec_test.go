// SPDX-License-Identifier: Apache-2.0

package desec_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/desec"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

type set struct {
	SubName string   `json:"subname"`
	Type    string   `json:"type"`
	Records []string `json:"records"`
	TTL     int      `json:"ttl"`
}

// service answers as https://desec.readthedocs.io does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	const path = " /api/v1/domains/example.test/rrsets/www.answers/TXT/"
	keep := func(q set) {
		var values []string
		for _, quoted := range q.Records {
			v, err := strconv.Unquote(quoted)
			if err != nil {
				t.Errorf("the record %s", quoted)
			}
			values = append(values, v)
		}
		s.Set(values...)
	}
	show := func(w http.ResponseWriter, status int) {
		q := set{SubName: apitest.Host, Type: "TXT", TTL: 3600}
		for _, v := range s.Values() {
			q.Records = append(q.Records, strconv.Quote(v))
		}
		b, err := json.Marshal(q)
		if err != nil {
			t.Error(err)
		}
		apitest.Write(w, status, string(b))
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /api/v1/domains/", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("owns_qname") != apitest.Name {
			t.Errorf("%s is looked for", r.FormValue("owns_qname"))
		}
		apitest.Write(w, 200, `[{"name":"example.test"}]`)
	})
	m.HandleFunc("GET"+path, func(w http.ResponseWriter, _ *http.Request) {
		if len(s.Values()) == 0 {
			apitest.Write(w, 404, `{"detail":"Not found."}`)
			return
		}
		show(w, 200)
	})
	m.HandleFunc("POST /api/v1/domains/example.test/rrsets/", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[set](t, r)
		if q.SubName != apitest.Host || q.Type != "TXT" || q.TTL < 3600 {
			t.Errorf("%+v is set", q)
		}
		keep(q)
		show(w, 201)
	})
	m.HandleFunc("PATCH"+path, func(w http.ResponseWriter, r *http.Request) {
		keep(apitest.Read[set](t, r))
		if len(s.Values()) == 0 {
			w.WriteHeader(204)
			return
		}
		show(w, 200)
	})
	return apitest.Authorized(t, "Authorization", "Token token", m)
}

func TestService(t *testing.T) {
	var s apitest.Store
	client := apitest.Client(t, service(t, &s), "desec.io")
	apitest.Run(t, desec.New(desec.Config{APIToken: "token", HTTPClient: client}), &s)
}
