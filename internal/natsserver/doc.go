// SPDX-License-Identifier: Apache-2.0

// Package natsserver runs NATS servers with JetStream for tests: the real program,
// in the version that this module requires, one process for each server, alone or as
// a cluster, with accounts, credentials and files as docs/bus.md has them.
//
//	s := natsserver.Start(t, natsserver.Options{})
//	c := natsserver.StartCluster(t, natsserver.Options{})
//	… c.URL(), c.Trust.Admin …
//	node := c.Leader(t, "KEYTURN_default")
//	node.Kill(t)
//	node.Restart(t)
//	c.Cut(t, node)
//	c.Heal(t)
//
// The servers of a cluster reach each other through links in the test's process,
// which can be cut: then nothing passes any more, in either direction, and nobody is
// told. That needs no rights of root. Clients reach a server that is cut off.
package natsserver
