// SPDX-License-Identifier: Apache-2.0

// Package acme has no code: its tests get certificates from real ACME CAs, Pebble and
// step-ca, by the real programs, keyturn and examples/server, as processes of their
// own. The CAs look at what answers: replicas, a manager's own ports, a web server's
// directory, a name server.
//
//	go test ./e2e/acme                  # with the race detector: -race, programs included
//	go test ./e2e/acme -run TestChallenges/stepca/Wildcard -v
package acme
