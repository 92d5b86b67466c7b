// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

// certificates are the scenarios of managed certificates.
func certificates() []scenario {
	two := []string{"a.ca.example", "b.ca.example"}
	return []scenario{
		{
			name:  "make",
			act:   func(c *child) error { return c.makeAll(two) },
			check: at(1, two...),
		},
		{
			name:    "renew",
			prepare: func(w *world) { w.make(two...) },
			act: func(c *child) error {
				if err := c.renewAll(two, 2); err != nil {
					return err
				}
				return c.pass() // what was committed and not copied
			},
			check: at(2, two...),
		},
		{
			name:    "pass",
			prepare: marked(two...),
			act:     (*child).pass,
			check:   at(2, two...),
		},
		{
			name:    "run",
			prepare: marked(two...),
			act: func(c *child) error {
				err := c.run(func() (bool, error) {
					states, err := c.states()
					return err == nil && states[two[0]].Generation >= 2 && states[two[1]].Generation >= 2, err
				})
				if err != nil {
					return err
				}
				return c.pass() // whoever runs would wait before it copies what another has committed
			},
			check: at(2, two...),
		},
		{
			name: "fail",
			prepare: func(w *world) {
				c := w.make("a.ca.example")[0]
				_, err := w.m.Change(w.t.Context(), c.ID, manager.Change{Issuers: []string{"deaf"}})
				must(w.t, err)
			},
			act: func(c *child) error {
				return c.until(c.pass, func(s map[string]*manager.Managed) bool { return s["a.ca.example"].Failure != nil })
			},
			check: at1("a.ca.example"),
		},
		{
			name:    "hold",
			prepare: marked("a.scarce.example"),
			act: func(c *child) error {
				return c.until(c.pass, func(s map[string]*manager.Managed) bool { return s["a.scarce.example"].Hold != nil })
			},
			check: at1("a.scarce.example"),
		},
		{
			name:    "remove",
			prepare: func(w *world) { w.make(two...) },
			act: func(c *child) error {
				if err := c.removeAll(two); err != nil {
					return err
				}
				return c.pass()
			},
			check: gone(two...),
		},
		{
			name:    "change",
			prepare: func(w *world) { w.make(two...) },
			act:     (*child).change,
			check:   at(2, two...),
		},
		{
			name:    "revoke",
			prepare: func(w *world) { w.make(two...) },
			act:     (*child).revoke,
			check: func(w *world) error {
				return errors.Join(at(2, two[0])(w), gone(two[1])(w))
			},
		},
		{
			name:    "import",
			prepare: bringAlong,
			act:     (*child).importOne,
			check:   at(1, "a.elsewhere.example"),
		},
	}
}

// marked makes certificates that are due.
func marked(names ...string) func(w *world) {
	return func(w *world) {
		for _, name := range names {
			c := w.make(name)[0]
			must(w.t, w.m.Mark(w.t.Context(), c.ID, event.ReasonRekey))
		}
	}
}

// at1 returns an error unless a certificate stands that could not be renewed.
func at1(name string) func(w *world) error {
	return func(w *world) error {
		list, err := w.m.List(w.t.Context())
		if err != nil || len(list) != 1 || list[0].Generation != 1 || list[0].Claim != nil || list[0].Mark == nil {
			return fmt.Errorf("%s is not what it was: %+v, %v", name, list, err)
		}
		return nil
	}
}

// gone returns an error unless certificates are removed, and their names free.
func gone(names ...string) func(w *world) error {
	return func(w *world) error {
		list, err := w.m.List(w.t.Context())
		if err != nil {
			return err
		}
		for _, c := range list {
			for _, name := range names {
				if c.Spec.Names[0] == name {
					return fmt.Errorf("%s is not removed", name)
				}
			}
		}
		for _, name := range names {
			if _, err := w.m.Make(w.t.Context(), manager.Request{Names: []string{name}, Issuer: "ca"}); err != nil {
				return fmt.Errorf("the names are not free: %w", err)
			}
		}
		return nil
	}
}

// makeAll makes certificates, or completes what made them.
func (c *child) makeAll(names []string) error {
	kinds := []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384}
	kind := kinds[c.random.IntN(len(kinds))]
	return c.each(len(names), func(i int) error {
		r := manager.Request{Names: []string{names[i]}, Issuer: issuerOf(names[i]), Key: kind}
		_, err := c.m.Make(c.ctx, r)
		var there *manager.ExistsError
		switch {
		case !errors.As(err, &there):
			return err
		case there.Unmade:
			_, err = c.m.Renew(c.ctx, there.ID, event.ReasonNew)
			return err
		}
		return c.pass() // it may not be copied
	})
}

// renewAll renews what is not at a generation yet.
func (c *child) renewAll(names []string, generation uint64) error {
	states, err := c.states()
	if err != nil {
		return err
	}
	return c.each(len(names), func(i int) error {
		s := states[names[i]]
		if s == nil || s.Generation >= generation {
			return nil
		}
		_, err := c.m.Renew(c.ctx, s.ID, event.ReasonRekey)
		return err
	})
}

func (c *child) removeAll(names []string) error {
	states, err := c.states()
	if err != nil {
		return err
	}
	return c.each(len(names), func(i int) error {
		s := states[names[i]]
		if s == nil {
			return nil
		}
		err := c.m.Remove(c.ctx, s.ID)
		var removed *manager.RemovedError
		if errors.As(err, &removed) {
			return nil
		}
		return err
	})
}

// change pauses, changes and marks.
func (c *child) change() error {
	states, err := c.states()
	if err != nil {
		return err
	}
	a, b := states["a.ca.example"], states["b.ca.example"]
	if b.Generation < 2 {
		if _, err := c.m.Change(c.ctx, b.ID, manager.Change{Issuers: []string{"other"}}); err != nil {
			return err
		}
	}
	steps := []error{c.m.Pause(c.ctx, a.ID, "the test"), c.m.PauseIssuer(c.ctx, "ca", "the test")}
	if a.Generation < 2 {
		steps = append(steps, c.m.Mark(c.ctx, a.ID, event.ReasonRekey))
	}
	steps = append(steps, c.m.ResumeIssuer(c.ctx, "ca", ""), c.m.Resume(c.ctx, a.ID, ""))
	return errors.Join(append(steps, c.pass())...)
}

// until repeats something until the certificates are as they should be.
func (c *child) until(do func() error, so func(map[string]*manager.Managed) bool) error {
	for {
		if err := do(); err != nil {
			return err
		}
		states, err := c.states()
		if err != nil || so(states) {
			return err
		}
		if c.ctx.Err() != nil {
			return fmt.Errorf("it does not come to be so: %+v", states)
		}
	}
}

// run runs the manager until something is so.
func (c *child) run(so func() (bool, error)) error {
	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.m.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for {
		ok, err := so()
		if ok || err != nil {
			return err
		}
		select {
		case <-c.ctx.Done():
			return errors.New("what runs does not come to its end")
		case <-time.After(20 * time.Millisecond): // and another look
		}
	}
}
