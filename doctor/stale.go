// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/tls"
	"crypto/x509"
)

// checkExpected compares what a new connection gets with what ought to be served.
func (x *examination) checkExpected() {
	leaf, expect := x.state.PeerCertificates[0], x.Expect
	switch {
	case expect == nil:
	case leaf.Equal(expect):
		x.add(found(AsExpected, Note,
			"Whoever still sees another one has a connection that is older than the rotation, or resumed a session that is: restart that client, or end the server's old connections (keyturn.Store.Drain).",
			"New connections get the expected certificate, %s.", idOf(leaf)))
	case expect.VerifyHostname(x.name) != nil:
		x.add(found(Stale, Error,
			"Look whether it is the right file, and the right --servername.",
			"The server serves %s, and not the expected %s, which is not for %s.", idOf(leaf), idOf(expect), quote(x.name)))
	case leaf.NotBefore.After(expect.NotBefore):
		x.add(found(Stale, Warning,
			"Get the newest certificate to compare with, or see who else renews it.",
			"The server serves %s, which is newer than the expected %s.", idOf(leaf), idOf(expect)))
	default:
		x.add(found(Stale, Error,
			"Let the process load the new files: reload or restart it, and see that each of several servers at this address does. A Go server that uses package keyturn's Store takes them over by itself.",
			"The server has not taken over the rotation: new connections still get %s, and not the expected %s.", idOf(leaf), idOf(expect)))
	}
}

// Compare says why an open connection has not the certificate that r shows new ones to
// get: cs is the connection's state, on the client's side. It finds nothing if both are
// the same certificate, or if one is not known.
func (r *Report) Compare(cs tls.ConnectionState) []Finding {
	if r.leaf == nil || len(cs.PeerCertificates) == 0 || cs.PeerCertificates[0].Equal(r.leaf) {
		return nil
	}
	held := cs.PeerCertificates[0]
	switch {
	case held.NotBefore.After(r.leaf.NotBefore):
		return []Finding{found(Stale, Error,
			"See that each of the servers behind the address takes the rotation over.",
			"The connection has %s, and a new one got the older %s: several servers share the address, or one went back.", idOf(held), idOf(r.leaf))}
	case cs.DidResume:
		return []Finding{found(Stale, Error,
			"End the connection and let the client forget its sessions: restart it. On the server, new ticket keys end resumption.",
			"The rotation was not taken over because the connection resumed an old session, which goes with the certificate of its first handshake: it has %s, and new ones get %s.", idOf(held), idOf(r.leaf))}
	}
	return []Finding{found(Stale, Error,
		"End the connection: close the client's idle ones or restart it, or end the server's old ones (keyturn.Store.Drain).",
		"The rotation was not taken over because the connection is older than it: it has %s, and new ones get %s.", idOf(held), idOf(r.leaf))}
}

// idOf tells generations of one certificate apart.
func idOf(c *x509.Certificate) string {
	return title(c) + " of serial " + serialOf(c) + ", valid from " + stamp(c.NotBefore) + " to " + stamp(c.NotAfter)
}
