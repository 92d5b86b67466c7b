// SPDX-License-Identifier: Apache-2.0

// Package model has managers and replicas do random things over a network that loses,
// delays, repeats and cuts, and holds what came of it against what must be true whatever
// happened: one certificate for each generation, no replica that goes back, and all of
// them the same when the network works again. Time is virtual; it has only tests.
//
//	go test ./e2e/model -rapid.checks=500
//	go test ./e2e/model -rapid.seed=N       # what a failure prints: the same is done, and
//	                                        # what happens at once may go otherwise
package model
