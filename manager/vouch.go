// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
)

// atOnce is how many entries or certificates are worked on at once where all of
// a group or of the bus have to be.
const atOnce = 8

// signedScopes are those in which managers' entries stand that outlive who wrote
// them, the states before their copies. Join tokens end with their maker: he may
// have kept some.
var signedScopes = []string{event.StateScope, groupsScope, event.NamesScope, confScope, event.MemberScope}

// A voucher signs anew what managers signed that are to be believed no more.
type voucher struct {
	m    *Manager
	gone []*seal.VerifyKey
	// reached is where each scope ended when they were left out: what they wrote
	// later counts for nothing. It is nil at that time, when nothing is too late.
	reached []event.Reached
}

// vouchForRest makes up for what the managers wrote that the newest set leaves
// out, between being signed anew and that set. Without now, that was some time
// ago, perhaps.
func (m *Manager) vouchForRest(ctx context.Context, l *signerList, now bool) error {
	sets := l.sets
	if len(sets) < 2 {
		return nil
	}
	v := voucher{m: m}
	if !now {
		v.reached = append([]event.Reached{}, l.set.Reached...)
	}
	for _, k := range sets[len(sets)-2].Keys {
		key, err := seal.NewVerifyKey(k.Key)
		if err == nil && !l.has(k) {
			v.gone = append(v.gone, key)
		}
	}
	if len(v.gone) == 0 {
		return nil
	}
	// It may not have learnt at once that it is no manager any more.
	for range rounds {
		if n, err := m.vouch(ctx, v); n == 0 || err != nil {
			return err
		}
	}
	return nil
}

// reachedNow returns where the scopes end.
func (m *Manager) reachedNow(ctx context.Context) ([]event.Reached, error) {
	var all []event.Reached
	for _, scope := range signedScopes {
		end := bus.Position{}
		err := m.readLog(ctx, scope, func(u bus.Update) { end = u.Position })
		if err != nil {
			return nil, fmt.Errorf("reading where %s ends: %w", scope, err)
		}
		all = append(all, event.Reached{Scope: scope, Position: end.String()})
	}
	return all, nil
}

// vouch goes through all scopes, and returns how many entries it has found.
func (m *Manager) vouch(ctx context.Context, v voucher) (n int, err error) {
	if _, err := m.mayWrite(ctx); err != nil {
		return 0, err
	}
	for _, scope := range signedScopes {
		keys, err := v.find(ctx, scope)
		if err != nil {
			return n, fmt.Errorf("reading what stands under %s: %w", scope, err)
		}
		n += len(keys)
		var done atomic.Int64
		err = each(ctx, keys, func(key string) error {
			err := v.renew(ctx, key)
			crash.Point(crash.Vouched)
			if n := done.Add(1); err == nil && (n%100 == 0 || n == int64(len(keys))) {
				m.progress(v.gone[0].ID().String(), fmt.Sprintf("signed anew under %s: %d of %d", scope, n, len(keys)))
			}
			return err
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// find returns the keys of a scope's entries that hold such a signature.
func (v *voucher) find(ctx context.Context, scope string) ([]string, error) {
	var keys []string
	err := v.m.readLog(ctx, scope, func(u bus.Update) {
		e, err := event.Trusted(v.m.tenant, u.Data)
		if err == nil && u.Key != event.ManagersKey && (v.signed(e) || v.current(e)) {
			keys = append(keys, u.Key)
		}
	})
	return keys, err
}

// signed reports whether e says that it is by one of those.
func (v *voucher) signed(e *event.Event) bool {
	return slices.ContainsFunc(v.gone, func(k *seal.VerifyKey) bool { return k.ID() == e.Signer })
}

// current reports whether e is a state whose event says so.
func (v *voucher) current(e *event.Event) bool {
	s, ok := e.Body.(*event.State)
	if !ok || len(s.Current) == 0 {
		return false
	}
	inner, err := event.Trusted(v.m.tenant, s.Current)
	return err == nil && v.signed(inner)
}

// counts reports whether what one of them wrote is to be believed.
func (v *voucher) counts(entry bus.Entry) bool {
	if v.reached == nil {
		return true
	}
	return slices.ContainsFunc(v.reached, func(r event.Reached) bool {
		end, err := bus.ParsePosition(r.Position)
		return err == nil && bus.InScope(entry.Key, r.Scope) && entry.Position.Log == end.Log && entry.Position.Seq <= end.Seq
	})
}

// renew signs the entry under a key anew. What has not a right signature, or was
// written too late, is left alone.
func (v *voucher) renew(ctx context.Context, key string) error {
	for {
		entry, err := v.m.newest(ctx, key)
		if err != nil {
			return err
		}
		data, err := v.anew(ctx, entry)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if data == nil {
			return nil
		}
		if _, err := v.m.write(ctx, key, entry.Position, data); !conflict(err) {
			return err
		}
	}
}

// anew returns what shall stand in place of an entry; nil if the entry shall.
func (v *voucher) anew(ctx context.Context, entry bus.Entry) ([]byte, error) {
	t, err := v.m.trusted(ctx)
	if err != nil {
		return nil, err
	}
	e, err := event.Open(slices.Concat(v.gone, t.keys), v.m.tenant, entry.Key, entry.Data)
	if err != nil {
		return nil, nil // nobody has believed it yet
	}
	late := v.signed(e) && !v.counts(entry)
	switch body := e.Body.(type) {
	case *event.State:
		if v.current(e) && !late {
			return v.state(e, body)
		}
	case *event.Certificate:
		return v.copy(ctx, entry, body.Version, late)
	case *event.Removal:
		return v.copy(ctx, entry, body.Version, late)
	}
	if !v.signed(e) || late {
		return nil, nil
	}
	return event.Resign(v.m.identity.Signing, entry.Data)
}

// state signs a state and the event in it.
func (v *voucher) state(e *event.Event, s *event.State) ([]byte, error) {
	if _, err := event.Open(v.gone, v.m.tenant, event.CertificateKey(s.Spec.Group, s.ID), s.Current); err != nil {
		return nil, nil
	}
	next := *s
	var err error
	if next.Current, err = event.Resign(v.m.identity.Signing, s.Current); err != nil {
		return nil, err
	}
	return event.Sign(v.m.identity.Signing, v.m.tenant, e.Time, &next)
}

// copy is what shall stand for replicas, whose version is known: the same bytes
// as in the state, if that has the same version.
func (v *voucher) copy(ctx context.Context, entry bus.Entry, version event.Version, late bool) ([]byte, error) {
	c, err := v.m.Get(ctx, path.Base(entry.Key))
	var none *NotFoundError
	switch {
	case err != nil && !errors.As(err, &none):
		return nil, err
	case err == nil && (c.Version == version || version.Less(c.Version)):
		if bytes.Equal(c.Current, entry.Data) {
			return nil, nil
		}
		return c.Current, nil
	case late:
		return nil, nil
	}
	e, err := event.Trusted(v.m.tenant, entry.Data)
	if err != nil || !v.signed(e) {
		return nil, err
	}
	return event.Resign(v.m.identity.Signing, entry.Data)
}

// each runs work for every item, a few at once, and returns what failed. Once
// ctx has ended, no more are begun.
func each[T any](ctx context.Context, items []T, work func(T) error) error {
	slots := make(chan struct{}, atOnce)
	failed := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			failed[i] = work(item)
		})
	}
	wg.Wait()
	return errors.Join(errors.Join(failed...), ctx.Err())
}
