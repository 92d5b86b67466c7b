// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/event"
)

// orderPending is the state of an order whose names are not proven yet (RFC 8555
// section 7.1.6). It cannot have become a certificate, and leaving it costs none.
const orderPending = "pending"

// An UnfinishedError says that the first generation of a certificate could not be
// had, and that its order stays: a second one would be a second certificate.
type UnfinishedError struct {
	// ID is the certificate's.
	ID string
	// Err is why.
	Err error
}

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("%v: the order stays, and is gone on with by whoever runs, or by asking for the same certificate again; `keyturn cert rm %s` gives it up", e.Err, e.ID)
}
func (e *UnfinishedError) Unwrap() error { return e.Err }

// unfinished returns a certificate like spec whose first order is under way, and
// whose maker has failed, or died; nil if there is none.
func (m *Manager) unfinished(ctx context.Context, spec *event.Spec) (*Managed, error) {
	list, _, err := m.holders(ctx, spec)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(c *Managed) bool {
		return c.Generation == 0 && c.Order != nil && (c.Failure != nil || m.claimed(c) == 0) && sameSpec(&c.Spec, spec)
	})
	if i < 0 {
		return nil, nil
	}
	return list[i], nil
}

// sameSpec reports whether two specs want the same certificate in the same way.
func sameSpec(a, b *event.Spec) bool {
	return a.Group == b.Group && slices.Equal(sortedNames(a.Names), sortedNames(b.Names)) &&
		a.Issuer == b.Issuer && slices.Equal(a.Fallbacks, b.Fallbacks) &&
		a.Challenge == b.Challenge && a.Profile == b.Profile && a.KeyType == b.KeyType &&
		a.Lifetime == b.Lifetime && a.RenewBefore == b.RenewBefore
}
