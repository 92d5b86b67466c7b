// SPDX-License-Identifier: Apache-2.0

package acme

import "time"

// SetTimeout sets how long one request may take.
func (ca *CA) SetTimeout(d time.Duration) { ca.transport.timeout = d }

// SetPatience sets how long a state is waited for.
func (ca *CA) SetPatience(d time.Duration) { ca.patience = d }

// Known returns the account as it is known.
func (ca *CA) Known() *Account { return ca.current() }
