// SPDX-License-Identifier: Apache-2.0

// Package server holds nothing: its module pins the programs that package
// cfsslserver builds, by their names in go.mod.
package server
