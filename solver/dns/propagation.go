// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Of the wait for name servers.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second // from 500 ms by half more each time
	progress   = 15 * time.Second
	// An address counts as one that nothing answers from after so many looks, and a
	// part of the time: at once where the network says so.
	looksTillSilent = 3
	silentPart      = 4
)

// A PropagationError says which name servers did not have a record in time.
type PropagationError struct {
	Record Record
	// Waited is how long.
	Waited time.Duration
	// Servers are those that miss the record, with what they answer.
	Servers []string
	// Err is why waiting ended: that of the context, or nil.
	Err error
}

func (e *PropagationError) Error() string {
	zone := "its zone"
	if e.Record.Zone != "" {
		zone = "the zone " + e.Record.Zone
	}
	text := fmt.Sprintf("the TXT record %s was set, but after %v not every name server of %s has the value %q: %s; "+
		"see whether the service distributes the zone, or raise the solver's propagation",
		e.Record.Name, e.Waited.Round(time.Millisecond), zone, e.Record.Value, strings.Join(e.Servers, "; "))
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *PropagationError) Unwrap() error { return e.Err }

// A place is one address that has to have the record.
type place struct {
	server, addr string // addr is "" for the resolvers
	seen         bool
	answered     bool // ever
	looks        int
	unreachable  bool
	last         string // what it answers, or why it does not
}

func (p *place) String() string {
	if p.addr == "" {
		return p.server + " " + p.last
	}
	return fmt.Sprintf("%s (%s) %s", p.server, p.addr, p.last)
}

// wait returns when the name servers have the record.
func (s *Solver) wait(ctx context.Context, r Record, log *slog.Logger) error {
	begun := time.Now()
	limit, cancel := context.WithTimeout(ctx, s.c.Propagation)
	defer cancel()
	places := s.places(limit, r)
	told := begun
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		s.look(limit, r, places)
		// Nothing is concluded from questions that the end of the time cut off.
		if limit.Err() == nil && enough(places, time.Since(begun) > s.c.Propagation/silentPart) {
			report(log, places, time.Since(begun))
			return nil
		}
		if time.Since(told) > progress {
			told = time.Now()
			log.Info("waiting for name servers to have the record", "missing", missing(places), "for", time.Since(begun).Round(time.Second))
		}
		select {
		case <-time.After(pause):
		case <-limit.Done():
			return &PropagationError{r, time.Since(begun), missing(places), context.Cause(ctx)}
		}
	}
}

// there reports whether all name servers that answer have the record now.
func (s *Solver) there(ctx context.Context, r Record) bool {
	places := s.places(ctx, r)
	for range looksTillSilent {
		s.look(ctx, r, places)
	}
	return ctx.Err() == nil && enough(places, true)
}

// places returns where the record has to be: the authoritative servers and, for
// the case that none of them answers, the resolvers, at the end.
func (s *Solver) places(ctx context.Context, r Record) []*place {
	var places []*place
	if r.Zone != "" {
		servers, err := s.c.Resolver.NameServers(ctx, r.Zone)
		if err != nil {
			s.c.Logger.Warn("the zone's name servers cannot be found", "zone", r.Zone, "error", err)
		}
		for _, server := range servers {
			for _, addr := range server.Addrs {
				places = append(places, &place{server: server.Name, addr: addr})
			}
		}
	}
	return append(places, &place{server: "the resolver"})
}

// look asks all places that have not been seen to have the record, at once; the
// resolvers only if no other place has answered, since they would keep an empty
// answer.
func (s *Solver) look(ctx context.Context, r Record, places []*place) {
	own := len(places) - 1
	var all sync.WaitGroup
	for _, p := range places[:own] {
		if !p.seen {
			all.Go(func() { s.ask(ctx, r, p) })
		}
	}
	all.Wait()
	if all := places[:own]; !slices.ContainsFunc(all, func(p *place) bool { return p.answered || p.looks < looksTillSilent }) {
		s.ask(ctx, r, places[own])
	}
}

func (s *Solver) ask(ctx context.Context, r Record, p *place) {
	var values []string
	var err error
	if p.addr == "" {
		values, err = s.c.Resolver.TXT(ctx, r.Name)
	} else {
		values, err = s.c.Resolver.TXTAt(ctx, p.addr, r.Name)
	}
	p.looks++
	if err != nil {
		p.unreachable = noRoute(err)
		p.last = "does not answer: " + root(err)
		return
	}
	p.answered, p.seen = true, slices.Contains(values, r.Value)
	p.last = "answers " + shown(values)
}

// enough reports whether what was seen suffices: all that answers has the record,
// and something does. Late says that silence has lasted long enough.
func enough(places []*place, late bool) bool {
	own := places[len(places)-1]
	silent := 0
	for _, p := range places[:len(places)-1] {
		switch {
		case p.seen:
		case !p.answered && p.looks >= looksTillSilent && (late || p.unreachable):
			silent++
		default:
			return false
		}
	}
	return silent < len(places)-1 || own.seen
}

// report tells what the wait came to.
func report(log *slog.Logger, places []*place, waited time.Duration) {
	own, rest := places[len(places)-1], missing(places)
	log = log.With("after", waited.Round(time.Millisecond))
	switch {
	case own.seen:
		log.Warn("no authoritative name server could be asked, but the resolver has the record", "silent", rest)
	case len(rest) > 0:
		log.Warn("all name servers that answer have the record", "silent", rest)
	default:
		log.Info("all name servers have the record", "servers", len(places)-1)
	}
}

// missing describes the places without the record that were asked.
func missing(places []*place) []string {
	var all []string
	for _, p := range places {
		if !p.seen && p.looks > 0 {
			all = append(all, p.String())
		}
	}
	return all
}

// noRoute reports whether the network says that there is nothing to wait for.
func noRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ECONNREFUSED)
}

// root is an error without what the message says already.
func root(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// shown are the first values, cut: a server may answer with anything.
func shown(values []string) string {
	const most, long = 4, 60
	if len(values) == 0 {
		return "that it has no such record"
	}
	var parts []string
	for _, v := range values[:min(len(values), most)] {
		if len(v) > long {
			v = strings.ToValidUTF8(v[:long], "") + "..."
		}
		parts = append(parts, strconv.Quote(v))
	}
	if more := len(values) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}
