// SPDX-License-Identifier: Apache-2.0

package status_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// A fleet is a manager with one certificate and one host that has joined.
type fleet struct {
	t       *testing.T
	log     *membus.Log
	id      *seal.Identity
	group   *seal.PrivateKey
	manager *manager.Manager
	cert    *manager.Managed
	member  event.Member
	host    *seal.Identity
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, log: membus.New()}
	var err error
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f.id, err = seal.NewIdentity()
	check(err)
	f.host, err = seal.NewIdentity()
	check(err)
	f.group, err = seal.GenerateKey()
	check(err)
	f.manager, err = manager.New(manager.Config{Log: f.log, Identity: f.id, Logger: slog.New(slog.DiscardHandler)})
	check(err)
	check(f.manager.Init(t.Context()))
	check(f.manager.AddGroup(t.Context(), manager.DefaultGroup, f.group.Public()))
	_, err = f.manager.UpdateConfig(t.Context(), []byte("issuers:\n  internal:\n    type: local\n"), bus.Position{})
	check(err)
	f.cert, err = f.manager.Make(t.Context(), manager.Request{Names: []string{"a.example"}})
	check(err)
	f.member = event.Member{Joined: time.Now(), JoinRequest: event.JoinRequest{
		ID: event.NewID(), Group: manager.DefaultGroup, Name: "web-1",
		SealKey: f.host.Sealing[0].Public().Bytes(), SignKey: f.host.Signing.Public().Bytes(),
	}}
	_, err = f.log.Append(t.Context(), event.MemberKey(f.member.Group, f.member.ID), bus.Position{}, f.sign(f.id, &f.member))
	check(err)
	return f
}

func (f *fleet) sign(by *seal.Identity, b event.Body) []byte {
	f.t.Helper()
	data, err := event.Sign(by.Signing, manager.DefaultTenant, time.Now(), b)
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// report puts a receipt on the board, signed by whomever.
func (f *fleet) report(by *seal.Identity, r event.Receipt) {
	f.t.Helper()
	r.Group, r.Member, r.Pages = f.member.Group, f.member.ID, 1
	if err := f.log.Board().Put(f.t.Context(), event.ReceiptKey(r.Group, r.Member, 0), f.sign(by, &r)); err != nil {
		f.t.Fatal(err)
	}
}

func contains(t *testing.T, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("without %s", want)
		}
	}
}

func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		s := status.New(slog.New(slog.DiscardHandler))
		s.Manager(f.manager)
		if _, body := ask(t, s, "GET", "/metrics"); strings.Contains(body, "keyturn_fleet") || !strings.Contains(body, "keyturn_log_rollbacks_total 0\n") {
			t.Error("before Run runs:", body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.manager.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		synctest.Wait()
		of := fmt.Sprintf(`{group="default",name="%s"}`, f.cert.ID)
		member := fmt.Sprintf(`{group="default",host="web-1",member="%s"}`, f.member.ID)
		_, body := ask(t, s, "GET", "/metrics")
		contains(t, body, "keyturn_fleet_members"+of+" 1", "keyturn_fleet_delivered"+of+" 0", "keyturn_fleet_served"+of+" 0")
		if strings.Contains(body, "keyturn_member_") {
			t.Error("a host that never reported is told of")
		}
		f.report(f.host, event.Receipt{
			Skew: 1500 * time.Millisecond, Differs: true,
			Certificates: []event.Received{{ID: f.cert.ID, Version: f.cert.Version, At: time.Now(), Served: time.Now()}},
		})
		synctest.Wait()
		_, body = ask(t, s, "GET", "/metrics")
		contains(t, body,
			"keyturn_fleet_delivered"+of+" 1", "keyturn_fleet_served"+of+" 1",
			"keyturn_member_skew_seconds"+member+" 1.5", "keyturn_member_differs"+member+" 1",
			fmt.Sprintf("keyturn_member_last_report_timestamp_seconds%s %g", member, float64(time.Now().UnixMilli())/1000),
			fmt.Sprintf(`keyturn_group_outage_budget_timestamp_seconds{group="default"} %g`, float64(f.cert.Certificate.NotAfter.UnixMilli())/1000),
			fmt.Sprintf("keyturn_last_pass_timestamp_seconds %g", float64(f.manager.Stats().LastPass.UnixMilli())/1000),
			"keyturn_receipts_refused_total 0")
		f.report(f.id, event.Receipt{})
		synctest.Wait()
		f.report(f.host, event.Receipt{Proofs: [][]byte{[]byte("junk")}})
		synctest.Wait()
		_, body = ask(t, s, "GET", "/metrics")
		contains(t, body, "keyturn_receipts_refused_total 1", "keyturn_proofs_refused_total 1")
	})
}

func TestReplica(t *testing.T) {
	f := newFleet(t)
	r, err := replica.Open(t.Context(), replica.Config{
		Log: f.log, Managers: []*seal.VerifyKey{f.id.Signing.Public()}, Keys: []*seal.PrivateKey{f.group}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := status.New(slog.New(slog.DiscardHandler))
	s.Replica(r)
	_, body := ask(t, s, "GET", "/metrics")
	contains(t, body,
		"keyturn_replica_certificates 1", "keyturn_replica_following 1", "keyturn_replica_applied_total 1", "keyturn_replica_removed_total 0",
		`keyturn_replica_refused_total{reason="replay"} 0`, "keyturn_replica_silent 0", "keyturn_replica_differs 0", "keyturn_replica_healed_total 0",
		fmt.Sprintf("keyturn_replica_outage_budget_timestamp_seconds %g", float64(f.cert.Certificate.NotAfter.UnixMilli())/1000))
	if strings.Contains(body, "keyturn_replica_beacon") {
		t.Error("a beacon that never came")
	}
}
