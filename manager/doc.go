// SPDX-License-Identifier: Apache-2.0

// Package manager decides and issues: it makes managed certificates, renews
// them in time, ends them, and publishes every generation for its group. It is
// the only part of Keyturn that holds credentials of CAs.
//
// Make a [Manager] over a bus with an identity. Its methods are what a command
// line or an API offers: [Manager.Make], [Manager.Renew], [Manager.Remove],
// [Manager.List]. [Manager.Run] renews by the schedule until it is told to
// stop; [Manager.RenewDue] is one pass of that, for timers and functions.
//
// # Many at once
//
// A manager keeps nothing between calls: what is known stands on the bus. Any
// number may work on the same certificates, in one process or in many, and there
// is no leader. Every write names the entry it replaces, so that of two writers
// one wins.
//
// Before a manager asks an issuer, it claims the next generation in the
// certificate's state. Whoever finds a claim waits for what comes of it: the
// generation, a failure, or nothing for two minutes (less where certificates
// live for minutes), by the waiting manager's own monotonic clock, after which
// the claim has lapsed and may be replaced. The old claimant, should it wake,
// conflicts and publishes nothing. So a generation is published once.
//
// The commit is the append to the state, which holds the whole signed event.
// The copy under the group's key, which replicas follow, is made afterwards, by
// the same manager or, if that died in between, by any other that runs.
//
// # When
//
// A certificate is due when a third of its lifetime is left, or half where it
// lives less than ten days, less a little that spreads certificates made
// together; see [Managed.RenewAt]. A failed attempt is repeated after 1, 10 and
// 100 minutes and then daily, sooner where the certificate ends before that.
// Failures of one certificate never delay another. [Manager.Mark] makes one due
// at once.
//
// # What is served
//
// Replicas report on the bus's board what they received and what new handshakes
// get, each receipt signed by the member's own key. [Manager.Fleet] puts that
// beside what was issued, [Manager.Live] does so from what Run follows, and
// [Manager.Wait] returns when all replicas serve a version.
//
// Once a minute and group, one of the managers signs a beacon on the board: the
// place in the log, and a digest of what stands there for the group's replicas.
// By it they notice what they missed.
//
// # Challenges
//
// A CA that speaks ACME asks for proof of control of every name. The solver of the
// zone that a name is in gives it; where the zone has none for the type of challenge,
// the replicas of the group do. The manager writes down what they are to answer, and
// has the CA look when every one of them that is live has reported that it answers.
//
// # When the log goes back
//
// A log that was put back to an old state, as from a back-up, would give versions
// out again that replicas have seen, and they would refuse them. What a replica
// holds above the state, signed by a manager, proves it, and so does what a
// running manager remembers. Then the epoch of the log is raised, and what was
// lost is made anew in it, or removed again. Nothing else that a replica reports
// makes a manager do anything.
//
// # Hosts, groups and managers
//
// [Manager.NewToken] makes a token by which one host joins a group. Run, or one
// pass of [Manager.Grant], makes its bearer a member, and whoever holds the
// group's private keys seals them to it. [Manager.RevokeMember] takes a member's
// rights away, and [Manager.RotateGroup] gives the group another key and makes
// anew what is sealed to the former one. Both can be called again for what was
// cut short.
//
// Who may sign stands on the bus as a chain of sets, each signed by a manager of
// the one before. [Manager.Init] makes the first, [Manager.AddSigner] and
// [Manager.RevokeSigner] the next. A manager that is in none of them, or in none
// any more, writes nothing: see [ErrNotManager].
package manager
