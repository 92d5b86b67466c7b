// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// TestMadeUpPages: a member can report more pages than all certificates fill,
// and have each manager keep them.
func TestMadeUpPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c := make1(t, m, "a.example")
		h := f.join(t, m, "lb1")
		page := func(n uint64, r event.Received) {
			h.put(&event.Receipt{Page: n, Pages: event.MaxPages, Certificates: []event.Received{r}}, h.key, time.Now())
		}
		made := func(n uint64) {
			page(n, event.Received{ID: event.NewID(), Version: event.Version{Epoch: 1, Generation: 1}})
		}
		page(0, holds(c))
		made(sparePages - 1) // it may be ahead
		made(sparePages)
		made(event.MaxPages - 1)
		v := newView(m)
		read := func() {
			for _, from := range append(v.sources(t.Context()), source{from: m.log, scope: event.StateScope, take: with(t.Context(), v.takeState)}) {
				if _, err := m.read(t.Context(), from, bus.Position{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		kept := func() (n int) {
			for _, host := range v.hosts {
				for _, p := range host.pages {
					n += p.held
				}
			}
			return n
		}
		read() // before the certificates are known, any page may be one
		if n, s := kept(), m.Stats(); n != 2 || s.ReceiptsRefused != 0 {
			t.Errorf("%d are kept, %d refused", n, s.ReceiptsRefused)
		}
		read()
		if n, s := kept(), m.Stats(); n != 2 || s.ReceiptsRefused != 2 {
			t.Errorf("again: %d are kept, %d refused", n, s.ReceiptsRefused)
		}
	})
}
