// SPDX-License-Identifier: Apache-2.0

// Package race tells tests whether the race detector runs, with which everything takes
// some ten times as long, and which allocates in places of its own.
package race
