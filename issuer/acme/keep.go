// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"fmt"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/issuer"
)

var _ issuer.Keeper = (*CA)(nil)

// Certificate fetches what an order of the account became, for as long as the CA
// keeps it.
func (ca *CA) Certificate(ctx context.Context, order string) ([][]byte, error) {
	s, err := ca.session(ctx)
	if err != nil {
		return nil, err
	}
	j := &job{session: s, url: order}
	o, _, err := j.look(ctx)
	switch {
	case err != nil:
		return nil, j.failed(err)
	case o.Status != acmez.StatusValid:
		return nil, j.failed(fmt.Errorf("it is %s: there is no certificate of it", shown(o.Status)))
	}
	chain, err := j.download(ctx, o)
	if err != nil {
		return nil, j.failed(err)
	}
	return chain, nil
}
