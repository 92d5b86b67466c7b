// SPDX-License-Identifier: Apache-2.0

package powerdns_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
	"github.com/keyturn/keyturn/solver/dns/powerdns"
)

type record struct {
	Content string `json:"content"`
}

type set struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	ChangeType string   `json:"changetype,omitempty"`
	Records    []record `json:"records"`
}

// service answers as https://doc.powerdns.com/authoritative/http-api/ does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	const path = " /pdns/api/v1/servers/main/zones/example.test."
	m := http.NewServeMux()
	m.HandleFunc("GET"+path, func(w http.ResponseWriter, _ *http.Request) {
		sets := []set{}
		if values := s.Values(); len(values) > 0 {
			one := set{Name: apitest.Name + ".", Type: "TXT"}
			for _, v := range values {
				one.Records = append(one.Records, record{strconv.Quote(v)})
			}
			sets = append(sets, one)
		}
		b, err := json.Marshal(map[string]any{"id": "example.test.", "name": "example.test.", "kind": "Master", "rrsets": sets})
		if err != nil {
			t.Error(err)
		}
		apitest.Write(w, 200, string(b))
	})
	m.HandleFunc("PATCH"+path, func(w http.ResponseWriter, r *http.Request) {
		for _, q := range apitest.Read[struct {
			RRSets []set `json:"rrsets"`
		}](t, r).RRSets {
			if q.Name != apitest.Name+"." || q.Type != "TXT" {
				t.Errorf("%+v is set", q)
			}
			var values []string
			for _, one := range q.Records {
				v, err := strconv.Unquote(one.Content)
				if err != nil {
					t.Errorf("the record %s", one.Content)
				}
				values = append(values, v)
			}
			s.Set(values...)
		}
		w.WriteHeader(204)
	})
	m.HandleFunc("PUT"+path+"/notify", func(w http.ResponseWriter, _ *http.Request) {
		apitest.Write(w, 200, `{"result":"Notification queued"}`)
	})
	return apitest.Authorized(t, "X-Api-Key", "key", m)
}

func TestService(t *testing.T) {
	var s apitest.Store
	server := httptest.NewServer(service(t, &s))
	defer server.Close()
	p, err := powerdns.New(powerdns.Config{URL: server.URL + "/pdns", APIKey: "key", Server: "main"})
	if err != nil {
		t.Fatal(err)
	}
	apitest.Run(t, p, &s)
}
