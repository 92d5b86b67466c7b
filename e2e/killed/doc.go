// SPDX-License-Identifier: Apache-2.0

// Package killed holds the tests that kill a process at each point of package crash:
// what managers, replicas and ACME servers do has to survive it.
//
// A scenario is something that a program does, written so that doing it again completes
// it, as the commands are. It runs in a process of its own, this package's test binary
// built with the tag "crashpoints", on a bus that the test runs, in a tenant and a
// directory that nobody else has. The process is killed at a point, the test looks at
// what is there, and another process does the same again, to its end.
//
// A seed chooses which scenario comes by the point, how often it is passed before, and
// the details: how many certificates, of which keys, one by one or at once. There are
// five, or 25 with KEYTURN_SOAK=1, or one with the race detector. To look at one point:
//
//	go test ./e2e/killed -run 'TestKilled/(unharmed|manager-claimed)'
//
// As root, the power of the embedded bus is cut as well, on an image of its disk.
package killed
