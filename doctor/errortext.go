// SPDX-License-Identifier: Apache-2.0

package doctor

import "strings"

// errorTexts are errors of crypto/tls that have no type, and of those that have one where only
// the text is left of it. The first that an error's text contains counts.
var errorTexts = []struct {
	text           string
	cause          Cause
	detail, remedy string
}{
	{"tls: client didn't provide a certificate", NoClientCertificate, "The server wants a client certificate, and the client has none, or none of a CA that the server named.", clientRemedy},
	{"tls: client offered only unsupported versions", ProtocolVersion, "The client speaks only versions of TLS that the server does not allow.", "Let the client speak TLS 1.2 or 1.3."},
	{"tls: client offered TLS version older than TLS 1.3", ProtocolVersion, "The client does not speak TLS 1.3, which QUIC needs.", "Let the client speak TLS 1.3."},
	{"tls: server selected unsupported protocol version", ProtocolVersion, "The server speaks only versions of TLS that the client does not allow.", "Let the server speak TLS 1.2 or 1.3."},
	{"tls: no supported versions satisfy", ProtocolVersion, "The configuration allows no version of TLS at all.", "Set MinVersion not above MaxVersion, or neither."},
	{"tls: no cipher suite supported by both", HandshakeFailure, "No cipher suite is allowed by both sides, or none of them fits the server's certificate.", "Allow the ECDHE suites with AES-GCM or ChaCha20 on both sides; one for ECDSA does not do for an RSA certificate."},
	{"tls: no key exchanges supported by both", HandshakeFailure, "No group for the key exchange is allowed by both sides.", "Allow X25519 and P-256 on both sides."},
	{"tls: peer doesn't support any of the certificate's signature algorithms", HandshakeFailure, "The peer cannot verify signatures by the certificate's kind of key.", "Use an ECDSA P-256 certificate, or an RSA one beside it."},
	{"tls: client requested unsupported application protocols", NoCommonProtocol, "The client offers only application protocols (ALPN) that the server does not speak.", "Compare the NextProtos of both sides, such as h2 and http/1.1."},
	{"tls: server selected unadvertised ALPN protocol", NoCommonProtocol, "The server chose an application protocol (ALPN) that it was not offered.", "Mend the server."},
	{"tls: no certificates configured", UnknownName, "The server has no certificate at all for this handshake.", "Give its configuration a certificate."},
	{"keyturn: choosing a certificate: ", UnknownName, "The server's store has no certificate for the name that the client asked for.", "Put one that covers it, or set a default."},
	{"keyturn: verifying clients: there are no client CAs", WrongPool, "The server is to verify its clients, and has no CAs for that: it refuses all.", "Set its client CAs (keyturn.Trust.SetClientCAs)."},
	{"certificate is not of an accepted peer", AccessDenied, "The peer's certificate is good, and has none of the names that are let in.", "Add its name to those (keyturn.Trust.SetPeerNames), or have it issued with one of them."},
	{"tls: failed to parse certificate from server", InvalidCertificate, "The server's certificate is broken.", "Have it issued anew."},
	{"tls: failed to parse client certificate", InvalidCertificate, "The client's certificate is broken.", "Have it issued anew."},
	{"certificate containing RSA key larger than", InvalidCertificate, "The peer's certificate has an RSA key that is larger than 8192 bits.", "Have it issued for an ECDSA key, or an RSA key of 2048 to 4096 bits."},
	{"keys are insecure (see https://go.dev", WeakKey, "The peer's certificate has an RSA key of fewer than 1024 bits.", "Have it issued for an ECDSA key, or an RSA key of 2048 bits or more."},
	{"tls: invalid signature by the", HandshakeFailure, "A signature of the peer does not fit its certificate.", "Look whether key and certificate are of one pair."},
	{"tls: first record does not look like a TLS handshake", NotTLS, "The peer does not speak TLS.", "Give the port that speaks TLS from the first byte on; let the client use TLS."},
	{"http: server gave HTTP response to HTTPS client", NotTLS, "The server speaks plain HTTP.", "Give the server's HTTPS port, or switch TLS on for this one."},
	{"client sent an HTTP request to an HTTPS server", NotTLS, "The client speaks plain HTTP.", "Let the client use https://."},
	{"tls: unsupported SSLv2 handshake received", ProtocolVersion, "The client begins with SSL 2.0.", "Let the client speak TLS 1.2 or 1.3."},
	{"x509: certificate signed by unknown authority", UnknownAuthority, "Nothing in the pool has signed the certificate that the peer showed.", "Give the CA's certificate to the side that says this; or the peer does not send an intermediate. Examine a server to see which."},
	{"x509: certificate has expired or is not yet valid: current time", Expired, "The certificate that the peer showed, or one above it, is outside its validity.", "Renew it; if it is valid, set the clock."},
	{"x509: certificate specifies an incompatible key usage", MissingEKU, "The certificate that the peer showed may not be used for this.", "Have it issued with the extended key usage serverAuth for a server, clientAuth for a client."},
	{"x509: certificate is valid for ", NameMismatch, "The certificate that the peer showed does not cover the name asked for.", "Ask for a name that it covers, or give the server a certificate for the name."},
}

func explainText(err error) []Finding {
	text := err.Error()
	for _, known := range errorTexts {
		if at := strings.Index(text, known.text); at >= 0 {
			detail := known.detail
			if known.cause == InvalidCertificate {
				detail += " It says: " + shown(text[at:]) + "."
			}
			return []Finding{found(known.cause, Error, known.remedy, "%s", detail)}
		}
	}
	return nil
}
