// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/seal"
)

// A page is one of a receipt.
type page struct {
	*event.Receipt
	reported time.Time // by the host's clock
	seen     time.Time // by this machine's, with its monotonic reading
	proofs   int       // how many there were
	held     int       // how many of its certificates are not removed
	sum      [sha256.Size]byte
}

// takeReceipt takes a page of a receipt if the member that it is of has signed
// it, and is one still.
func (v *view) takeReceipt(ctx context.Context, u bus.Update) {
	if u.CaughtUp {
		v.mark(event.ReceiptScope)
		return
	}
	parts := strings.Split(u.Key, "/")
	if len(parts) != 4 {
		return
	}
	h := v.host(ctx, event.MemberKey(parts[1], parts[2]))
	if h == nil {
		return
	}
	v.mu.Lock()
	key, live := h.key, h.live()
	v.mu.Unlock()
	if !live {
		return
	}
	e, err := event.Open([]*seal.VerifyKey{key}, v.m.tenant, u.Key, u.Data)
	if err != nil {
		v.refuse(h, err)
		return
	}
	if r, ok := e.Body.(*event.Receipt); ok {
		v.receipt(h, r, e.Time, sha256.Sum256(u.Data))
	}
}

// host returns the host with a member's key, nil if there is none. The receipt
// of one that has just joined may be here before the member's entry.
func (v *view) host(ctx context.Context, key string) *host {
	v.mu.Lock()
	h := v.hosts[key]
	v.mu.Unlock()
	if h != nil || bus.CheckKey(key) != nil {
		return h
	}
	entry, err := v.m.log.Get(ctx, key)
	if err != nil || v.member(ctx, entry) != nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.hosts[key]
}

// refuse counts a receipt that the member did not sign, and logs the first.
func (v *view) refuse(h *host, err error) {
	v.m.count(func(s *Stats) { s.ReceiptsRefused++ })
	v.mu.Lock()
	member, first := h.Member, h.refused == ""
	h.refused = err.Error()
	v.mu.Unlock()
	if first {
		v.m.logger.Warn("a receipt is not believed", "group", member.Group, "member", member.ID, "host", member.Name, "error", err)
	}
}

func (v *view) receipt(h *host, r *event.Receipt, at time.Time, sum [sha256.Size]byte) {
	proofs := r.Proofs
	tidy(r)
	v.mu.Lock()
	if limit := v.pagesLocked(); int(r.Page) >= limit {
		v.mu.Unlock()
		v.refuse(h, fmt.Errorf("page %d: %d are enough for all certificates on the bus", r.Page, limit))
		return
	}
	h.refused = ""
	if n := int(r.Page) + 1 - len(h.pages); n > 0 {
		h.pages = append(h.pages, make([]page, n)...)
	}
	if h.pages[r.Page].sum == sum || !h.live() { // the board says it again, or it was revoked just now
		v.mu.Unlock()
		return
	}
	h.pages[r.Page] = page{r, at, v.seenLocked(r, at), len(proofs), held(r), sum}
	if r.Page == 0 && uint64(len(h.pages)) > r.Pages {
		h.pages = slices.Clone(h.pages[:r.Pages])
	}
	v.mu.Unlock()
	if len(proofs) > 0 && v.proofs != nil {
		v.proofs(r.Group, r.Member, proofs)
	}
	v.tell()
}

// sparePages is how many more pages of a receipt are taken than all certificates
// fill: a replica may be ahead of this manager, or hold what the bus has lost.
const sparePages = 10

// pagesLocked is how many pages of a receipt are taken, so that what a member
// makes up costs a manager no more memory than the certificates do. Before those
// are known, it is all.
func (v *view) pagesLocked() int {
	if !v.caught[event.StateScope] {
		return event.MaxPages
	}
	return min(event.MaxPages, len(v.certs)/event.MaxReceipt+sparePages)
}

// trimLocked lets go of the pages that are not taken any more.
func (v *view) trimLocked() {
	limit := v.pagesLocked()
	for _, h := range v.hosts {
		if len(h.pages) > limit {
			h.pages = slices.Clone(h.pages[:limit])
		}
	}
}

// seenLocked returns when a receipt came. One that was there before has been
// there since it was made, by the host's clock and what that knows of its error.
func (v *view) seenLocked(r *event.Receipt, at time.Time) time.Time {
	now := time.Now()
	if made := at.Add(r.Skew); !v.caught[event.ReceiptScope] && made.Before(now) {
		return made
	}
	return now
}

// held is how many certificates a page says are held.
func held(r *event.Receipt) (n int) {
	for i := range r.Certificates {
		if !r.Certificates[i].Removed {
			n++
		}
	}
	return n
}

// tidy makes a receipt's text fit to be shown, its certificates sorted, and
// lets go of the bytes that it was decoded from.
func tidy(r *event.Receipt) {
	r.Program, r.Error, r.Position = printable.Line(r.Program), printable.Line(r.Error), printable.Line(r.Position)
	for i := range r.Certificates {
		r.Certificates[i].Error = printable.Line(r.Certificates[i].Error)
	}
	byID := func(a, b event.Received) int { return strings.Compare(a.ID, b.ID) }
	if !slices.IsSortedFunc(r.Certificates, byID) {
		slices.SortFunc(r.Certificates, byID)
	}
	r.Proofs = nil
}
