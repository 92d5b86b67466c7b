// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/manager"
)

// A scenario is something that a program does.
type scenario struct {
	name string
	// bare worlds have a bus and a data directory, and nothing on the log.
	bare bool
	// offline scenarios reach no bus by the manager's directory.
	offline bool
	// prepare is what is there before.
	prepare func(w *world)
	// act does it, in a process that may be killed, and again until it is done.
	act func(c *child) error
	// between looks at what a killed process has left, said is what it has said.
	between func(w *world, said []string) error
	// check looks at what has become of it.
	check func(w *world) error
}

// all returns the scenarios.
func all() []scenario {
	return slices.Concat(certificates(), groups(), managers(), authorities(), hosts())
}

func find(name string) (scenario, bool) {
	list := all()
	i := slices.IndexFunc(list, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return scenario{}, false
	}
	return list[i], true
}

// belongs returns an error unless the key is the leaf's.
func belongs(leaf *x509.Certificate, key any) error {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return errors.New("the key cannot sign")
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return errors.New("the key is not the certificate's")
	}
	return nil
}

// at returns an error unless every certificate that is managed is at a generation.
func at(generation uint64, names ...string) func(w *world) error {
	return func(w *world) error {
		list, err := w.m.List(w.t.Context())
		errs := []error{err}
		found := make(map[string]*manager.Managed)
		for _, c := range list {
			found[c.Spec.Names[0]] = c
		}
		for _, name := range names {
			switch c := found[name]; {
			case c == nil:
				errs = append(errs, fmt.Errorf("%s is not managed", name))
			case c.Generation != generation || c.Claim != nil || c.Mark != nil:
				errs = append(errs, fmt.Errorf("%s is at generation %d, claim %+v, mark %+v, failure %+v", name, c.Generation, c.Claim, c.Mark, c.Failure))
			}
		}
		return errors.Join(errs...)
	}
}
