// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// What may be secret in a configuration never prints, whatever the verb, and is
// neither logged nor encoded as JSON: Hidden stands for it. YAML alone has it, since
// that is what Encode writes.

type (
	shownLocal   Local
	shownCheckIn CheckIn
	shownACME    ACME
	shownEAB     EAB
	shownSolver  Solver
	shownVault   VaultAuth
	shownCFSSL   CFSSL
)

// Format prints Hidden for a bus whose URL has a password.
func (l Local) Format(s fmt.State, verb rune) { format(s, verb, l.shown()) }

// MarshalJSON encodes what Format prints.
func (l Local) MarshalJSON() ([]byte, error) { return json.Marshal(l.shown()) }

func (l Local) shown() shownLocal {
	if strings.Contains(l.Bus, "@") {
		l.Bus = Hidden
	}
	return shownLocal(l)
}

// Format prints Hidden for the URL: who knows it can check in.
func (c CheckIn) Format(s fmt.State, verb rune) { format(s, verb, c.shown()) }

// MarshalJSON encodes what Format prints.
func (c CheckIn) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

func (c CheckIn) shown() shownCheckIn {
	hide(&c.URL)
	return shownCheckIn(c)
}

// Format prints Hidden for the account's key.
func (a ACME) Format(s fmt.State, verb rune) { format(s, verb, a.shown()) }

// MarshalJSON encodes what Format prints.
func (a ACME) MarshalJSON() ([]byte, error) { return json.Marshal(a.shown()) }

func (a ACME) shown() shownACME {
	hide(&a.AccountKey)
	return shownACME(a)
}

// Format prints Hidden for the key.
func (e EAB) Format(s fmt.State, verb rune) { format(s, verb, e.shown()) }

// MarshalJSON encodes what Format prints.
func (e EAB) MarshalJSON() ([]byte, error) { return json.Marshal(e.shown()) }

func (e EAB) shown() shownEAB {
	hide(&e.HMACKey)
	return shownEAB(e)
}

// Format prints Hidden for the secret ID and the token.
func (a VaultAuth) Format(s fmt.State, verb rune) { format(s, verb, a.shown()) }

// MarshalJSON encodes what Format prints.
func (a VaultAuth) MarshalJSON() ([]byte, error) { return json.Marshal(a.shown()) }

func (a VaultAuth) shown() shownVault {
	hide(&a.SecretID)
	hide(&a.Token)
	return shownVault(a)
}

// Format prints Hidden for the key.
func (c CFSSL) Format(s fmt.State, verb rune) { format(s, verb, c.shown()) }

// MarshalJSON encodes what Format prints.
func (c CFSSL) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

func (c CFSSL) shown() shownCFSSL {
	hide(&c.AuthKey)
	return shownCFSSL(c)
}

// Format prints Hidden for the settings that Diff hides.
func (s Solver) Format(f fmt.State, verb rune) { format(f, verb, s.shown()) }

// MarshalJSON encodes what Format prints.
func (s Solver) MarshalJSON() ([]byte, error) { return json.Marshal(s.shown()) }

func (s Solver) shown() shownSolver {
	s.Settings = maps.Clone(s.Settings)
	for name, value := range s.Settings {
		s.Settings[name] = show([]string{"solvers", "", name}, value)
	}
	return shownSolver(s)
}

func hide(secret *string) {
	if *secret != "" {
		*secret = Hidden
	}
}

// format prints what is shown of a value as the value itself would be.
func format(s fmt.State, verb rune, shown any) {
	_, _ = fmt.Fprintf(s, fmt.FormatString(s, verb), shown)
}
