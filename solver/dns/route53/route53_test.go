// SPDX-License-Identifier: Apache-2.0

package route53_test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
	"github.com/keyturn/keyturn/solver/dns/route53"
)

const head = `<?xml version="1.0" encoding="UTF-8"?>`

type change struct {
	Action string   `xml:"Action"`
	Name   string   `xml:"ResourceRecordSet>Name"`
	Type   string   `xml:"ResourceRecordSet>Type"`
	Values []string `xml:"ResourceRecordSet>ResourceRecords>ResourceRecord>Value"`
}

// service answers as https://docs.aws.amazon.com/Route53/latest/APIReference does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /2013-04-01/hostedzonesbyname", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("dnsname") != apitest.Zone {
			t.Errorf("the zone %s is looked for", r.FormValue("dnsname"))
		}
		apitest.Write(w, 200, head+`<ListHostedZonesByNameResponse><HostedZones><HostedZone><Id>/hostedzone/Z1</Id><Name>example.test.</Name>
<CallerReference>x</CallerReference><Config><PrivateZone>false</PrivateZone></Config></HostedZone></HostedZones></ListHostedZonesByNameResponse>`)
	})
	m.HandleFunc("GET /2013-04-01/hostedzone/Z1/rrset", func(w http.ResponseWriter, _ *http.Request) {
		var sets string
		for _, v := range s.Values() {
			sets += fmt.Sprintf(`<ResourceRecord><Value>&quot;%s&quot;</Value></ResourceRecord>`, v)
		}
		if sets != "" {
			sets = `<ResourceRecordSet><Name>` + apitest.Name + `.</Name><Type>TXT</Type><TTL>10</TTL><ResourceRecords>` + sets + `</ResourceRecords></ResourceRecordSet>`
		}
		apitest.Write(w, 200, head+`<ListResourceRecordSetsResponse><ResourceRecordSets>`+sets+`</ResourceRecordSets></ListResourceRecordSetsResponse>`)
	})
	m.HandleFunc("POST /2013-04-01/hostedzone/Z1/rrset", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Changes []change `xml:"ChangeBatch>Changes>Change"`
		}
		if err := xml.NewDecoder(r.Body).Decode(&q); err != nil || len(q.Changes) != 1 {
			t.Errorf("%+v, %v", q, err)
		}
		for _, c := range q.Changes {
			if c.Name != apitest.Name+"." || c.Type != "TXT" {
				t.Errorf("%+v is set", c)
			}
			var values []string
			for _, quoted := range c.Values {
				v, err := strconv.Unquote(quoted)
				if err != nil {
					t.Errorf("the record %s", quoted)
				}
				values = append(values, v)
			}
			if s.Set(); c.Action == "UPSERT" {
				s.Set(values...)
			}
		}
		apitest.Write(w, 200, head+`<ChangeResourceRecordSetsResponse><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=own/") {
			t.Errorf("signed by %q", r.Header.Get("Authorization"))
		}
		m.ServeHTTP(w, r)
	})
}

func TestService(t *testing.T) {
	var s apitest.Store
	server := httptest.NewServer(service(t, &s))
	defer server.Close()
	t.Setenv("AWS_ENDPOINT_URL_ROUTE_53", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "environment") // the solver has a key of its own
	t.Setenv("AWS_SECRET_ACCESS_KEY", "environment")
	p, err := route53.New(route53.Config{AccessKeyID: "own", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	apitest.Run(t, p, &s)
}
