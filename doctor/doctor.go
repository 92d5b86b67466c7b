// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Options say how to examine a server. The zero value does as browsers do.
type Options struct {
	// ServerName is the name that is asked for (SNI) and that the certificate must
	// cover: a DNS name in A-labels, or an IP address, which is not sent (RFC 6066,
	// section 3). "" means the host of the address.
	ServerName string

	// Roots are the certificates that a chain may end in. nil means the system's.
	Roots *x509.CertPool

	// Certificate is shown if the server asks for one, whatever CAs it names. nil
	// means none.
	Certificate *tls.Certificate

	// Expect is what ought to be served. nil means whatever is valid.
	Expect *x509.Certificate

	// NextProtos are the application protocols (ALPN) to offer, the preferred one
	// first. nil means that none are.
	NextProtos []string

	// Timeout is for everything together. 0 means 10 seconds.
	Timeout time.Duration

	// Dial connects to an address of the network "tcp", HOST:PORT, and can do what has
	// to come before TLS: STARTTLS, a proxy. It is called at most twice. nil means a
	// [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Examine connects to a server and reports what it finds. The address is what
// [ParseAddress] takes. There always is a report; it says how far it came. Any number of
// calls may run at once.
//
// It takes as long as the handshake does, and up to a second more if the server asks
// for a client certificate: in TLS 1.3 it refuses one only after the handshake (RFC
// 8446, section 4.4.2), and a server that accepts it says nothing.
func Examine(ctx context.Context, address string, o Options) *Report {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Timeout, 10*time.Second))
	defer cancel()
	r := &Report{At: time.Now().UTC(), Reached: Nothing, Chain: []Link{}}
	hostport, err := ParseAddress(address)
	if err != nil {
		r.Address = shown(address)
		r.Findings = []Finding{found(Unreachable, Error, "Write HOST:PORT.", "%s.", shown(err.Error()))}
		return r
	}
	host, _, _ := net.SplitHostPort(hostport) // which JoinHostPort has made
	x := &examination{Options: o, report: r, address: hostport, name: nameOf(cmp.Or(o.ServerName, host))}
	if x.Dial == nil {
		x.Dial = new(net.Dialer).DialContext
	}
	r.Address, r.ServerName = hostport, shown(x.name)
	x.run(ctx)
	r.Findings = arrange(r.Findings)
	return r
}

// An examination is one call of Examine.
type examination struct {
	Options
	report  *Report
	address string
	name    string

	// Written by the callbacks of the handshake, which run before it returns.
	state    tls.ConnectionState         // as of the server's certificate
	asked    *tls.CertificateRequestInfo // nil if the server asks for no certificate
	complete bool                        // the handshake is
	ended    bool                        // the server closed the connection after it at once
}

func (x *examination) run(ctx context.Context) {
	conn, err := x.Dial(ctx, "tcp", x.address)
	if err != nil {
		for _, f := range Explain(err) {
			if f.Cause == Other || f.Cause == Closed {
				f.Cause = Unreachable // whatever Dial says
			}
			x.add(f)
		}
		return
	}
	x.report.Reached = Connected
	x.report.RemoteAddress = shown(conn.RemoteAddr().String())
	err = x.handshake(ctx, conn)
	x.describe()
	if err != nil {
		x.add(x.explain(ctx, err)...)
	}
	if len(x.state.PeerCertificates) > 0 {
		x.checkChain()
		x.checkExpected()
	}
	x.checkClient(err)
}

func (x *examination) add(list ...Finding) {
	x.report.Findings = append(x.report.Findings, list...)
}

// handshake returns why the server refuses the connection, and closes it.
func (x *examination) handshake(ctx context.Context, conn net.Conn) error {
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end) // HandshakeContext looks at ctx too
	}
	c := tls.Client(conn, &tls.Config{
		ServerName: x.name,
		NextProtos: x.NextProtos,
		MinVersion: tls.VersionTLS10, // to say so of a server that has nothing better
		// Everything is verified afterwards, and nothing is sent to the server.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			x.state = cs
			return nil
		},
		GetClientCertificate: func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			x.asked = asked
			if x.Certificate == nil {
				return new(tls.Certificate), nil
			}
			return x.Certificate, nil
		},
	})
	defer c.Close()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	x.complete, x.state = true, c.ConnectionState()
	if x.asked == nil || x.state.Version < tls.VersionTLS13 {
		return nil
	}
	const wait = time.Second
	end := time.Now().Add(wait)
	if limit, ok := ctx.Deadline(); ok && limit.Before(end) {
		end = limit
	}
	_ = c.SetReadDeadline(end)
	_, err := c.Read(make([]byte, 1))
	if x.ended = errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET); x.ended || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // in the latter case it waits for a request
	}
	return err
}

// explain is Explain of an error of the handshake, by what is known beside it.
func (x *examination) explain(ctx context.Context, err error) []Finding {
	if x.asked != nil {
		if list := x.explainRefusal(err); list != nil {
			return list
		}
	}
	a, ok := alertOf(err)
	if ok && len(x.state.PeerCertificates) == 0 && (a == alertUnrecognizedName || a == alertInternalError || a == alertHandshakeFailure || a == alertAccessDenied) {
		return x.explainUnknownName(ctx, a, err)
	}
	return Explain(err)
}

// explainUnknownName asks once more, for no name, to learn whether it is the name that
// the server does not like.
func (x *examination) explainUnknownName(ctx context.Context, a tls.AlertError, err error) []Finding {
	list := Explain(err)
	if isIP(x.name) {
		remedy := "No server name was sent, since an IP address cannot be: ask for a name that the server has (keyturn doctor --servername NAME), or give it a default."
		if list[0].Cause != UnknownName {
			remedy = list[0].Remedy + " " + remedy
		}
		list[0].Remedy = remedy
		return list
	}
	leaf := x.nameless(ctx)
	switch {
	case leaf != nil && leaf.VerifyHostname(x.name) != nil:
		return []Finding{found(UnknownName, Error,
			"Ask for a name that the server has, or give it a certificate for "+quote(x.name)+".",
			"The server has no certificate for %s (alert %s). Asked for no name, it shows %s, which is for %s.", quote(x.name), alertName(a), title(leaf), some(namesOf(leaf, countNames(leaf))))}
	case leaf == nil && list[0].Cause == UnknownName:
		list[0].Detail += " Asked for no name, it does not answer either."
	}
	return list
}

// nameless returns the certificate that the server shows to a client that sends no
// server name, or nil.
func (x *examination) nameless(ctx context.Context) *x509.Certificate {
	conn, err := x.Dial(ctx, "tcp", x.address)
	if err != nil {
		return nil
	}
	defer conn.Close()
	var leaf *x509.Certificate
	c := tls.Client(conn, &tls.Config{
		NextProtos:         x.NextProtos,
		MinVersion:         tls.VersionTLS10,
		InsecureSkipVerify: true, // it is looked at, and nothing is sent
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf = cs.PeerCertificates[0]
			return nil
		},
	})
	_ = c.HandshakeContext(ctx) // what matters is how far it came
	return leaf
}

// describe fills in what the handshake has shown.
func (x *examination) describe() {
	r := x.report
	if x.state.Version != 0 {
		r.Version, r.CipherSuite = tls.VersionName(x.state.Version), tls.CipherSuiteName(x.state.CipherSuite)
		r.ALPN = shown(x.state.NegotiatedProtocol)
	}
	switch {
	case x.complete:
		r.Reached = Handshake
	case len(x.state.PeerCertificates) > 0:
		r.Reached = Certificate
	}
	if x.asked != nil {
		r.ClientCertificateRequested = true
		r.ClientCertificateSent = x.Certificate != nil
		r.AcceptableCAs, r.AcceptableCAsLeftOut = acceptable(x.asked.AcceptableCAs)
	}
	if x.state.Version != 0 && x.state.Version < tls.VersionTLS12 {
		x.add(found(ProtocolVersion, Error,
			"Let the server speak TLS 1.2 and 1.3.",
			"The server speaks nothing better than %s, which clients of today refuse (RFC 8996).", r.Version))
	}
}

func (x *examination) checkChain() {
	c := &chainCheck{sent: x.state.PeerCertificates, roots: x.Roots, name: x.name, now: x.report.At}
	c.run()
	x.report.leaf = c.sent[0]
	x.report.Verified = !failed(c.findings)
	x.report.Chain = linksOf(c)
	for _, cert := range c.path {
		if end := moment(cert.NotAfter); x.report.Ends == nil || end.Before(*x.report.Ends) {
			x.report.Ends = &end
		}
	}
	x.add(c.findings...)
}
