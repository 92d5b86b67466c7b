// SPDX-License-Identifier: Apache-2.0

//go:build race

package race

// Enabled is true where the race detector runs.
const Enabled = true
