// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// fleet puts together what is known now.
func (v *view) fleet(q Query) *Fleet {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	f := &Fleet{At: now, Groups: []GroupStatus{}, Certificates: []CertificateStatus{}, Members: []MemberStatus{}}
	if c := v.certs[q.ID]; q.ID != "" && c != nil && q.Group == "" {
		q.Group = c.Spec.Group
	}
	hosts := make(map[string][]*host) // by group
	for _, h := range v.hosts {
		if h.live() && (q.Group == "" || q.Group == h.Group) {
			hosts[h.Group] = append(hosts[h.Group], h)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(hosts)) {
		slices.SortFunc(hosts[group], func(a, b *host) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
		})
		for _, h := range hosts[group] {
			s := h.status(now)
			if !q.Counts {
				s.Unknown = v.unknownLocked(h)
			}
			f.Members = append(f.Members, s)
		}
	}
	for _, c := range v.certs {
		if q.ID == c.ID || q.ID == "" && !c.Removed && (q.Group == "" || q.Group == c.Spec.Group) {
			f.Certificates = append(f.Certificates, certificateStatus(c, hosts[c.Spec.Group], now, q.Counts))
		}
	}
	slices.SortFunc(f.Certificates, func(a, b CertificateStatus) int { return strings.Compare(a.ID, b.ID) })
	for _, g := range v.groups {
		if !g.Removed && (q.Group == "" || q.Group == g.Name) {
			f.Groups = append(f.Groups, v.groupLocked(g, f.Members))
		}
	}
	slices.SortFunc(f.Groups, func(a, b GroupStatus) int { return strings.Compare(a.Name, b.Name) })
	return f
}

// certificateStatus counts what the hosts of its group have of a certificate.
func certificateStatus(c *Managed, hosts []*host, now time.Time, counts bool) CertificateStatus {
	s := CertificateStatus{
		ID: c.ID, Group: c.Spec.Group, Names: c.Spec.Names, Issuer: c.Spec.Issuer, Version: c.Version,
		Removed: c.Removed, Issued: c.Issued, Due: c.RenewAt(), Members: len(hosts),
	}
	if c.Certificate != nil {
		s.NotAfter = c.Certificate.NotAfter
	}
	if c.Mark != nil {
		s.Mark = c.Mark.Reason
	}
	if c.Failure != nil {
		s.Failure = c.Failure.Message
	}
	for _, h := range hosts {
		r, has := h.received(c.ID)
		if has && !r.Less(c.Version) && c.Generation > 0 {
			s.Delivered++
		}
		if c.Generation > 0 && serves(r, c.Version) {
			s.Served++
		}
		if !counts {
			s.Replicas = append(s.Replicas, h.replica(r, c.Version, now))
		}
	}
	return s
}

// serves reports whether what was received is a version or a later one, and in
// use. A removal is in use when it is received.
func serves(r event.Received, v event.Version) bool {
	return !r.Less(v) && (r.Removed || !r.Served.IsZero())
}

// replica says what a host has of a certificate whose newest version is v.
func (h *host) replica(r event.Received, v event.Version, now time.Time) ReplicaStatus {
	s := ReplicaStatus{
		Member: h.ID, Name: h.Name, State: h.state(r, v, now), Version: r.Version,
		Received: r.At, Served: r.Served, Lag: Seconds(r.Lag.Seconds()), Error: r.Error,
	}
	if p := h.head(); p != nil {
		s.Reported, s.Seen = p.reported, p.seen
	}
	return s
}

func (h *host) state(r event.Received, v event.Version, now time.Time) ReplicaState {
	switch {
	case h.head() == nil:
		return StateNever
	case h.silent(now):
		return StateSilent
	case v.Generation > 0 && serves(r, v):
		return StateServing
	case r.Error != "":
		return StateRefused
	case r.Less(v) || v.Generation == 0:
		return StateBehind
	}
	return StateReceived
}

// head is the first page of the newest receipt; nil if there never was one.
func (h *host) head() *page {
	if len(h.pages) == 0 || h.pages[0].Receipt == nil {
		return nil
	}
	return &h.pages[0]
}

func (h *host) silent(now time.Time) bool {
	p := h.head()
	return p != nil && now.Sub(p.seen) > SilentAfter
}

// received returns what the host last said of a certificate. While the pages of
// a receipt are replaced one by one, an id may stand on two of them.
func (h *host) received(id string) (newest event.Received, found bool) {
	for _, p := range h.pages {
		if p.Receipt == nil || h.head() == nil {
			continue
		}
		list := p.Certificates
		i := sort.Search(len(list), func(i int) bool { return list[i].ID >= id })
		if i < len(list) && list[i].ID == id && (!found || newest.Less(list[i].Version)) {
			newest, found = list[i], true
		}
	}
	return newest, found
}

// status is how a host's replica is.
func (h *host) status(now time.Time) MemberStatus {
	s := MemberStatus{
		ID: h.ID, Name: h.Name, Group: h.Group, Joined: h.Joined, Granted: len(h.Member.Keys) > 0,
		Silent: h.silent(now), Error: h.refused,
	}
	p := h.head()
	if p == nil {
		return s
	}
	s.Reported, s.Seen, s.Proofs = p.reported, p.seen, p.proofs
	s.Program, s.Started, s.Following, s.Position = p.Program, p.Started, p.Following, p.Position
	s.Error = cmp.Or(s.Error, p.Error)
	s.Skew, s.Beacon, s.Differs, s.Healed, s.Budget = Seconds(p.Skew.Seconds()), p.Beacon, p.Differs, p.Healed, p.Budget
	s.Keys = keyIDs(p.Receipt.Keys)
	for _, p := range h.pages {
		s.Certificates += p.held
	}
	return s
}

// unknownLocked returns ids that a host holds and the bus does not know.
func (v *view) unknownLocked(h *host) (ids []string) {
	for _, p := range h.pages {
		if p.Receipt == nil || h.head() == nil {
			continue
		}
		for i := range p.Certificates {
			if id := p.Certificates[i].ID; v.certs[id] == nil && len(ids) < maxUnknown {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func keyIDs(ids []seal.KeyID) []string {
	var list []string
	for _, id := range ids {
		list = append(list, id.String())
	}
	return list
}

// groupLocked sums up a group from its certificates and members.
func (v *view) groupLocked(g *event.Group, members []MemberStatus) GroupStatus {
	s := GroupStatus{Name: g.Name, Beacon: v.beacons[g.Name].at}
	if key, err := seal.NewPublicKey(g.Key); err == nil { // the entry was checked
		s.Key = key.ID().String()
	}
	for _, k := range g.Retiring {
		s.Retiring = append(s.Retiring, k.ID.String())
	}
	for _, c := range v.certs {
		if c.Spec.Group != g.Name || c.Removed {
			continue
		}
		s.Certificates++
		if c.Certificate != nil {
			s.Budget = sooner(s.Budget, c.Certificate.NotAfter)
		}
	}
	for _, m := range members {
		if m.Group != g.Name {
			continue
		}
		s.Members++
		s.Budget = sooner(s.Budget, m.Budget)
		switch {
		case m.Reported.IsZero():
			s.Unreported++
		case m.Silent:
			s.Silent++
		}
		if m.Differs {
			s.Differing++
		}
	}
	return s
}

// sooner returns the first of two times, of which either may be zero.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
