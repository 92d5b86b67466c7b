// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Explain turns the error of a failed connection or handshake into findings, at least
// one, worst first; nil has none. It takes what crypto/tls, crypto/x509 and net return on
// either side, however wrapped, and the text of such an error, as a server's log has it.
// A client's and a server's errors are alike in part, so that a remedy can speak of both
// sides. See [Examine] for more than an error can say.
func Explain(err error) []Finding {
	if err == nil {
		return nil
	}
	list := explainX509(err)
	for _, explain := range []func(error) []Finding{explainAlert, explainRecord, explainText, explainNetwork} {
		if len(list) == 0 {
			list = explain(err)
		}
	}
	if len(list) == 0 {
		list = []Finding{found(Other, Error, "", "%s.", strings.TrimSuffix(shown(err.Error()), "."))}
	}
	return arrange(list)
}

// explainX509 explains what a verifier said.
func explainX509(err error) []Finding {
	if name, ok := errors.AsType[x509.HostnameError](err); ok && name.Certificate != nil {
		if f, ok := explainName(name.Certificate, name.Host); ok {
			return []Finding{f}
		}
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		var sent []*x509.Certificate
		if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			sent = v.UnverifiedCertificates
		} else if unknown.Cert != nil {
			sent = []*x509.Certificate{unknown.Cert}
		}
		if len(sent) == 0 {
			return nil // the text says what there is to say
		}
		return []Finding{explainUnknown(sent, ascend(sent[:min(len(sent), maxLinks)]), nil, err)}
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Cert != nil {
		return []Finding{explainInvalid(invalid)}
	}
	if _, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
		return []Finding{found(WeakSignature, Error,
			"Have it issued anew by a CA that signs with SHA-256 or better.",
			"A certificate is signed with an algorithm that can be forged.")}
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return []Finding{found(UnknownAuthority, Error,
			"Install them (the package is often called ca-certificates), or give a file of roots.",
			"This machine has no root certificates.")}
	}
	if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
		return []Finding{found(InvalidCertificate, Error,
			"Have it issued anew without that extension.",
			"A certificate has a critical extension that Go does not know, and so has to be refused (RFC 5280, section 4.2).")}
	}
	return nil
}

func explainInvalid(invalid x509.CertificateInvalidError) Finding {
	cert := invalid.Cert
	what := "the certificate"
	switch invalid.Reason {
	case x509.Expired:
		now := time.Now()
		// The verifier's clock can be another than this machine's.
		if strings.Contains(invalid.Detail, " is before ") {
			now = cert.NotBefore.Add(-1)
		} else if !now.After(cert.NotAfter) {
			now = cert.NotAfter.Add(1)
		}
		f, _ := explainTime(what, cert, now)
		return f
	case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
		return found(MissingEKU, Error,
			"Have it issued with the extended key usage serverAuth for a server, clientAuth for a client.",
			"%s %s, or a CA above it, may not be used for this: its extended key usage is %s.", upper(what), title(cert), usageText(cert))
	case x509.NotAuthorizedToSign:
		return found(InvalidCertificate, Error,
			"Have the leaf issued by a CA, or the CA's certificate with the basic constraint CA.",
			"The certificate %s has signed another, and is not one of a CA.", title(cert))
	case x509.CANotAuthorizedForThisName, x509.UnconstrainedName:
		return found(InvalidCertificate, Error,
			"Have it issued by a CA that may sign these names.",
			"A CA above %s may not sign a name that it has: %s.", title(cert), shown(invalid.Detail))
	}
	return found(InvalidCertificate, Error,
		"Have the chain issued anew.",
		"The certificate %s, or the chain above it, breaks a rule of RFC 5280: %s.", title(cert), shown(strings.TrimPrefix(invalid.Error(), "x509: ")))
}

// explainRecord explains bytes that are not TLS. The first of them often say what it is.
func explainRecord(err error) []Finding {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok {
		return nil
	}
	head := string(record.RecordHeader[:])
	what, remedy := "something that is not TLS", "Give the port that speaks TLS from the first byte on."
	for _, known := range []struct{ start, what, remedy string }{
		{"HTTP/", "plain HTTP", "Give the server's HTTPS port, or switch TLS on for this one."},
		{"GET ", "plain HTTP", "Let the client use https://."},
		{"POST ", "plain HTTP", "Let the client use https://."},
		{"HEAD ", "plain HTTP", "Let the client use https://."},
		{"PRI *", "plain HTTP/2", "Let the client use TLS."},
		{"SSH-", "SSH", "Give the port that speaks TLS."},
		{"PROXY", "the PROXY protocol", "Let the server take the PROXY header off before TLS."},
		{"220", "SMTP or FTP", startTLS},
		{"* OK", "IMAP", startTLS},
		{"+OK", "POP3", startTLS},
		{"INFO ", "NATS", startTLS},
	} {
		if strings.HasPrefix(head, known.start) {
			what, remedy = known.what, known.remedy
		}
	}
	return []Finding{found(NotTLS, Error, remedy, "The peer speaks %s: it begins with %s.", what, quote(head))}
}

const startTLS = "Give the port that speaks TLS from the first byte on: switching to it by STARTTLS or the like is not spoken here."

func explainNetwork(err error) []Finding {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return []Finding{found(Unreachable, Error,
			"Look whether the name is right, and whether this machine's DNS server knows it.",
			"The host %s was not found: %s.", quote(dns.Name), shown(dns.Err))}
	}
	var late net.Error
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &late) && late.Timeout()
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return []Finding{found(Unreachable, Error,
			"Start the server, or look at the port and at the address that it listens on.",
			"Nothing listens there: the connection is refused.")}
	case isOp && op.Op == "dial" && timeout:
		return []Finding{found(Unreachable, Error,
			"Look whether the host is up, whether its address is right, and what firewall lies between.",
			"Nothing answers at that address.")}
	case isOp && op.Op == "dial":
		return []Finding{found(Unreachable, Error,
			"Look at the address, and at this machine's network.",
			"No connection can be made: %s.", shown(err.Error()))}
	case timeout:
		return []Finding{found(NoAnswer, Error,
			"Look whether the port speaks TLS, and whether the server hangs; a server that waits for the client to speak first, without TLS, looks like this.",
			"The connection stands, and the peer does not answer the handshake.")}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return []Finding{found(Closed, Error,
			"Look into the log of the peer. Often it is a load balancer without a back end, one that knows the name asked for by another, a filter of addresses, or a port that speaks no TLS.",
			"The peer closed the connection in the handshake and did not say why.")}
	case errors.Is(err, context.Canceled):
		return []Finding{found(Other, Error, "", "It was interrupted.")}
	}
	return nil
}
