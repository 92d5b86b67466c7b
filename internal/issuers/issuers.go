// SPDX-License-Identifier: Apache-2.0

// Package issuers makes the issuers that keep nothing between two certificates, of
// their settings: those of a CA that is a server of its own. A manager asks them, and
// so does a program that has no manager.
//
// It links the clients of all these CAs.
package issuers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
)

// A kind is how issuers of one type come to be.
type kind struct {
	// open makes the issuer. It asks nobody.
	open func(config.Issuer) (issuer.Issuer, error)
	// address is the URL of the CA, or its ARN; "" if the settings do not say.
	address func(config.Issuer) string
}

// kinds are all types, by their name in the configuration.
var kinds = map[string]kind{
	"vault":  {openVault, func(c config.Issuer) string { return c.Vault.Address }},
	"cfssl":  {openCFSSL, func(c config.Issuer) string { return c.CFSSL.Address }},
	"awspca": {openAWSPCA, func(c config.Issuer) string { return c.AWSPCA.ARN }},
}

// Types lists the types whose issuers keep nothing, sorted.
func Types() []string { return slices.Sorted(maps.Keys(kinds)) }

// Open makes an issuer of its settings, as config has read them. It asks nobody. An
// issuer that is an [io.Closer] has to be closed when it is not needed any more.
func Open(c config.Issuer) (issuer.Issuer, error) {
	k, ok := kinds[c.Type]
	if !ok {
		return nil, fmt.Errorf("an issuer of type %q needs a manager; those that need none are %s", c.Type, strings.Join(Types(), ", "))
	}
	return k.open(c)
}

// Address returns the URL of an issuer's CA, or its ARN; "" if its settings do not say, or its
// type is not one of Types.
func Address(c config.Issuer) string {
	k, ok := kinds[c.Type]
	if !ok {
		return ""
	}
	return k.address(c)
}
