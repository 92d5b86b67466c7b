// SPDX-License-Identifier: Apache-2.0

// Package e2e has no code: its tests run the real programs, keyturn and
// examples/server, as processes of their own, each in a data directory of its
// own, and look at them from outside: over TLS, over HTTP, through the command
// line and on the disk.
//
//	go test ./e2e                      # with the race detector: -race, programs included
//	go test ./e2e -run TestKill -seed 42 -v
package e2e
