// SPDX-License-Identifier: Apache-2.0

package acme

import "time"

// A Preset is what is known of a public CA.
type Preset struct {
	// Directory is its URL.
	Directory string
	// Terms is where its terms of service are; its directory names the exact text.
	Terms string
	// NeedsEAB says that an account needs an external account binding.
	NeedsEAB bool
	// Limits are the CA's published rate limits; those that it does not publish are
	// zero.
	Limits Limits
}

// Limits are what a CA lets be asked of it.
type Limits struct {
	// Orders are new orders of an account, Domain certificates for one registered
	// domain, Set those for exactly the same names, and Failures failed validations
	// of one name by one account.
	Orders, Domain, Set, Failures Rate
}

// A Rate is so many in so much time. The zero value is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

const week = 7 * 24 * time.Hour

// Presets are CAs by the name that a configuration can give in the place of the
// directory's URL. The limits of Let's Encrypt are those of
// https://letsencrypt.org/docs/rate-limits/ and
// https://letsencrypt.org/docs/staging-environment/; the others publish none that
// a client could count.
var Presets = map[string]Preset{
	"letsencrypt": {
		Directory: "https://acme-v02.api.letsencrypt.org/directory",
		Terms:     "https://letsencrypt.org/repository/",
		Limits: Limits{
			Orders:   Rate{300, 3 * time.Hour},
			Domain:   Rate{50, week},
			Set:      Rate{5, week},
			Failures: Rate{5, time.Hour},
		},
	},
	"letsencrypt-staging": {
		Directory: "https://acme-staging-v02.api.letsencrypt.org/directory",
		Terms:     "https://letsencrypt.org/repository/",
		Limits: Limits{
			Orders:   Rate{1500, 3 * time.Hour},
			Domain:   Rate{30000, week},
			Set:      Rate{30000, week},
			Failures: Rate{200, time.Hour},
		},
	},
	"zerossl": {
		Directory: "https://acme.zerossl.com/v2/DV90",
		Terms:     "https://zerossl.com/terms/",
		NeedsEAB:  true,
	},
	"google": {
		Directory: "https://dv.acme-v02.api.pki.goog/directory",
		Terms:     "https://pki.goog/GTS-SA.pdf",
		NeedsEAB:  true,
	},
}
