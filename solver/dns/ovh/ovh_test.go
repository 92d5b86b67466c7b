// SPDX-License-Identifier: Apache-2.0

package ovh_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
	"github.com/keyturn/keyturn/solver/dns/ovh"
)

// service answers as https://api.ovh.com/console/ does. Changes are seen after a
// refresh of the zone.
func service(t *testing.T, pending, s *apitest.Store) http.Handler {
	m, signed := http.NewServeMux(), http.NewServeMux()
	m.HandleFunc("GET /1.0/auth/time", func(w http.ResponseWriter, _ *http.Request) { apitest.Write(w, 200, "1790000000") })
	m.Handle("/", apitest.Authorized(t, "X-Ovh-Application", "key", apitest.Authorized(t, "X-Ovh-Consumer", "consumer", signed)))
	signed.HandleFunc("POST /1.0/domain/zone/example.test/record", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[struct{ FieldType, SubDomain, Target string }](t, r)
		if q.FieldType != "TXT" || q.SubDomain != apitest.Host || !strings.HasPrefix(r.Header.Get("X-Ovh-Signature"), "$1$") {
			t.Errorf("%+v is set", q)
		}
		apitest.Write(w, 200, fmt.Sprintf(`{"id":%d}`, pending.Add(q.Target)))
	})
	signed.HandleFunc("DELETE /1.0/domain/zone/example.test/record/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id, err := strconv.Atoi(r.PathValue("id")); err != nil || !pending.Delete(id) {
			apitest.Write(w, 404, `{"message":"This service does not exist"}`)
			return
		}
		apitest.Write(w, 200, "null")
	})
	signed.HandleFunc("POST /1.0/domain/zone/example.test/refresh", func(w http.ResponseWriter, _ *http.Request) {
		s.Set(pending.Values()...)
		apitest.Write(w, 200, "null")
	})
	return m
}

func TestService(t *testing.T) {
	var pending, s apitest.Store
	for host, endpoint := range map[string]string{"eu.api.ovh.com": "", "ca.api.ovh.com": "ovh-ca"} {
		p, err := ovh.New(ovh.Config{
			Endpoint: endpoint, ApplicationKey: "key", ApplicationSecret: "secret", ConsumerKey: "consumer",
			HTTPClient: apitest.Client(t, service(t, &pending, &s), host),
		})
		if err != nil {
			t.Fatal(err)
		}
		apitest.Run(t, p, &s)
	}
}
