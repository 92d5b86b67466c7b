// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn"
)

func TestObserve(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	events := make(chan keyturn.Event, 100)
	cancel := store.Observe(events)
	var opened atomic.Int32

	put(t, &store, "id", root.leaf(t, names("a.test")))
	store.Put("id", tls.Certificate{})
	store.PutPEM("pem", nil, nil)
	store.PutDER("der", nil, nil)
	load(t, &store, "lazy", lazily(root.leaf(t, names("b.test")), &opened, "b.test"))
	store.Load("refused", keyturn.Lazy{})
	for range 2 {
		store.GetCertificate(&tls.ClientHelloInfo{ServerName: "b.test"})
	}
	store.GetCertificate(&tls.ClientHelloInfo{ServerName: "c.test"})
	store.Remove("id")
	store.Remove("nothing")
	cancel()
	cancel()
	store.Remove("lazy")
	close(events)

	var got []string
	for e := range events {
		got = append(got, fmt.Sprintf("%v %s%s %t", e.Kind, e.ID, e.Name, e.Err != nil))
		var unknown *keyturn.UnknownNameError
		if e.Dropped != 0 || e.Kind == keyturn.Unknown && !errors.As(e.Err, &unknown) {
			t.Errorf("event %+v", e)
		}
	}
	want := []string{
		fmt.Sprint(keyturn.Swapped, " id false"),
		fmt.Sprint(keyturn.Refused, " id true"),
		fmt.Sprint(keyturn.Refused, " pem true"),
		fmt.Sprint(keyturn.Refused, " der true"),
		fmt.Sprint(keyturn.Swapped, " lazy false"),
		fmt.Sprint(keyturn.Refused, " refused true"),
		fmt.Sprint(keyturn.Opened, " lazy false"),
		fmt.Sprint(keyturn.Unknown, " c.test true"),
		fmt.Sprint(keyturn.Removed, " id false"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestObserverIsNotWaitedFor(t *testing.T) {
	root := newRoot(t, "root")
	cert := root.leaf(t, names("a.test"))
	var store keyturn.Store
	slow, fast := make(chan keyturn.Event, 1), make(chan keyturn.Event, 100)
	defer store.Observe(slow)()
	defer store.Observe(make(chan keyturn.Event))()
	defer store.Observe(nil)()
	defer store.Observe(fast)()
	for range 10 {
		put(t, &store, "id", cert)
	}
	if e := <-slow; e.Dropped != 0 {
		t.Errorf("the first event says that %d were dropped", e.Dropped)
	}
	store.Remove("id")
	if e := <-slow; e.Kind != keyturn.Removed || e.Dropped != 9 {
		t.Errorf("after 9 dropped events: %+v", e)
	}
	if len(fast) != 11 {
		t.Errorf("the fast observer has %d events", len(fast))
	}
}

func TestUnknownNamesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store keyturn.Store
		ask := func(n int) {
			for i := range n {
				store.GetCertificate(&tls.ClientHelloInfo{ServerName: fmt.Sprintf("junk-%d.test", i)})
			}
		}
		ask(1000) // nobody observes
		events := make(chan keyturn.Event, 100)
		defer store.Observe(events)()
		ask(1000)
		if len(events) != 16 {
			t.Errorf("%d events for 1000 unknown names in a second", len(events))
		}
		for range 16 {
			if e := <-events; e.Dropped != 0 {
				t.Errorf("%+v", e)
			}
		}
		time.Sleep(time.Second)
		ask(1)
		if e := <-events; e.Dropped != 984 {
			t.Errorf("the next event says that %d were left out, want 984", e.Dropped)
		}

		var wg sync.WaitGroup
		time.Sleep(time.Second)
		for range 4 {
			wg.Go(func() { ask(100) })
		}
		wg.Wait()
		if n := len(events); n == 0 || n > 16 {
			t.Errorf("%d events for unknown names at once", n)
		}
	})
}

// After cancel returned, the channel may be closed even while others cause events.
func TestCancelThenClose(t *testing.T) {
	root := newRoot(t, "root")
	cert := root.leaf(t, names("a.test"))
	var store keyturn.Store
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := make(chan struct{})
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				store.GetCertificate(&tls.ClientHelloInfo{ServerName: "unknown.test"})
				store.Remove("id")
				put(t, &store, "id", cert)
			}
		}
	})
	for range 200 {
		events := make(chan keyturn.Event, 1)
		cancel := store.Observe(events)
		<-events
		cancel()
		close(events)
	}
}
