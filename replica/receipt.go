// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// Times of receipts.
const (
	// settle is how long changes that come together are collected, and
	// receiptEvery the least time between two receipts.
	settle       = 100 * time.Millisecond
	receiptEvery = time.Second
	// heartbeat is the time between two where nothing changes, and heartbeatSoon
	// where the last one failed, or there is more than one could hold.
	heartbeat     = time.Minute
	heartbeatSoon = 10 * time.Second
	// putTimeout bounds one call of the board.
	putTimeout = 10 * time.Second
)

const (
	// maxErrors bounds what the texts of failures take of a page, in bytes: with
	// all else that 1000 certificates need, a page stays below event.MaxSize.
	maxErrors = 64 << 10
	// maxBusError bounds the text of why the bus is not followed, in bytes.
	maxBusError = 1000
	maxProgram  = 63
)

// A reporter puts receipts on the board. All but kicked is its goroutine's.
type reporter struct {
	r       *Replica
	board   bus.Board
	kicked  chan struct{}
	program string
	started time.Time

	sent   [][]event.Received // by page, what is on the board
	turn   int                // counts heartbeats, for the page that one says again
	proven string             // the last id whose proof was sent
	failed string             // the last error, "" after a success
}

func newReporter(r *Replica, board bus.Board, program string) *reporter {
	return &reporter{r: r, board: board, kicked: make(chan struct{}, 1), program: cut(cmp.Or(program, mainVersion()), maxProgram), started: r.started}
}

// mainVersion is that of the program's main module.
func mainVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// kick says that something has changed that receipts tell of. It never waits.
func (r *Replica) kick() {
	if r.reporter == nil {
		return
	}
	select {
	case r.reporter.kicked <- struct{}{}:
	default:
	}
}

// run reports until ctx ends.
func (p *reporter) run(ctx context.Context) {
	var last time.Time
	next := time.Duration(0)
	for {
		beat := false
		select {
		case <-ctx.Done():
			return
		case <-p.kicked:
		case <-time.After(next):
			beat = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(settle, receiptEvery-time.Since(last))):
		}
		select {
		case <-p.kicked: // what it tells of is in this one
		default:
		}
		last, next = time.Now(), heartbeat
		more, err := p.report(ctx, beat)
		if err != nil || more {
			next = heartbeatSoon
		}
		p.log(ctx, err)
	}
}

// log logs each reason for a failure once.
func (p *reporter) log(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		p.failed = ""
	case err.Error() != p.failed:
		p.failed = err.Error()
		p.r.logger.Warn("what this replica has could not be reported; trying on", "error", err)
	}
}

// report puts the first page, and the others that have changed; with beat one
// more, as a board may lose what it has. It reports whether there are proofs for
// another receipt.
func (p *reporter) report(ctx context.Context, beat bool) (more bool, err error) {
	head, certificates, proofs := p.r.report()
	if head == nil {
		return false, nil
	}
	head.Program, head.Started = p.program, p.started
	pages := slices.Collect(slices.Chunk(certificates, event.MaxReceipt))
	if len(pages) == 0 {
		pages = [][]event.Received{nil}
	}
	head.Pages = uint64(len(pages))
	if len(pages) != len(p.sent) {
		p.sent = make([][]event.Received, len(pages)) // each tells how many there are
	}
	again := 0
	if beat {
		p.turn++
		again = p.turn % len(pages)
	}
	var errs []error
	for i := len(pages) - 1; i > 0; i-- { // the first says that the others are there
		if i != again && slices.Equal(p.sent[i], pages[i]) {
			continue
		}
		page := &event.Receipt{Group: head.Group, Member: head.Member, Page: uint64(i), Pages: head.Pages, Certificates: bounded(pages[i])}
		p.sent[i] = pages[i]
		if err := p.put(ctx, page); err != nil {
			p.sent[i] = nil
			errs = append(errs, err)
		}
	}
	head.Certificates = bounded(pages[0])
	more, err = p.prove(head, proofs)
	return more, errors.Join(append(errs, err, p.put(ctx, head))...)
}

func (p *reporter) put(ctx context.Context, page *event.Receipt) error {
	data, err := p.r.signOwn(page)
	if err != nil {
		return err
	}
	crash.Point(crash.Reporting)
	ctx, stop := context.WithTimeout(ctx, putTimeout)
	defer stop()
	return p.board.Put(ctx, event.ReceiptKey(page.Group, page.Member, page.Page), data)
}

// prove adds as many proofs as the page takes, after those of the last receipt,
// and reports whether there are more.
func (p *reporter) prove(head *event.Receipt, proofs map[string][]byte) (more bool, err error) {
	if len(proofs) == 0 {
		return false, nil
	}
	data, err := p.r.signOwn(head)
	if err != nil {
		return false, err
	}
	const field = 6 // what the encoding adds to each: a tag and a length
	room := event.MaxSize - len(data)
	ids := slices.Sorted(maps.Keys(proofs))
	first, found := slices.BinarySearch(ids, p.proven)
	if found {
		first++
	}
	for i := range ids {
		id := ids[(first+i)%len(ids)]
		proof := proofs[id]
		if len(head.Proofs) == event.MaxProofs {
			break
		}
		if n := len(proof) + field; n <= room {
			head.Proofs = append(head.Proofs, proof)
			room -= n
			p.proven = id
		}
	}
	return len(head.Proofs) < len(ids), nil
}

// bounded cuts the texts of failures where a page has too many.
func bounded(page []event.Received) []event.Received {
	out := slices.Clone(page)
	room := maxErrors
	for i := range out {
		if room -= len(out[i].Error); room < 0 {
			out[i].Error = cut(out[i].Error, 12)
		}
	}
	return out
}

// signOwn signs what the member itself says.
func (r *Replica) signOwn(body event.Body) ([]byte, error) {
	data, err := event.Sign(r.member.host.Signing, r.tenant, time.Now(), body)
	if err != nil {
		return nil, fmt.Errorf("signing a receipt: %w", err)
	}
	return data, nil
}

// report returns what there is to report: the head of a receipt, nil where
// nothing may be reported any more, the certificates, sorted by id, and proofs.
func (r *Replica) report() (*event.Receipt, []event.Received, map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.Revoked {
		return nil, nil, nil
	}
	s := r.statusLocked()
	head := &event.Receipt{
		Group: r.group, Member: r.member.ID, Following: s.Following, Position: s.Position.String(),
		Skew: s.Skew, Beacon: s.Beacon, Differs: s.Differs, Healed: s.Healed, Budget: s.Budget,
		Keys: s.Keys[:min(len(s.Keys), event.MaxKeys)],
	}
	if s.LastError != nil {
		head.Error = cut(s.LastError.Error(), maxBusError)
	}
	_, head.Challenges = r.challenges.answered()
	proofs := make(map[string][]byte, len(r.proofs))
	for id := range r.proofs {
		if data := r.event(id, r.held[id]); data != nil {
			proofs[id] = data
		}
	}
	return head, r.servedLocked(), proofs
}

// Served returns what is held of every managed certificate, removals and
// failures included, sorted by id. What a snapshot held is served since Open,
// and when it was received is not known any more. What came during catch-up is not
// said to be served before its private key was opened and its certificate checked,
// which begins at the end of catch-up.
func (r *Replica) Served() []event.Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.servedLocked()
}

func (r *Replica) servedLocked() []event.Received {
	all := make([]event.Received, 0, len(r.held))
	for id, h := range r.held {
		one := event.Received{ID: id, Version: h.version, Removed: h.removed, At: h.at, Lag: h.lag, Error: r.failures[id].text}
		if h.proven {
			one.Served = h.served
		}
		all = append(all, one)
	}
	for id, f := range r.failures {
		if r.held[id] == nil {
			all = append(all, event.Received{ID: id, Error: f.text})
		}
	}
	slices.SortFunc(all, func(a, b event.Received) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
