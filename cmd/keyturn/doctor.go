// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/doctor"
	"github.com/keyturn/keyturn/internal/names"
)

func newDoctor() *cobra.Command {
	var serverName, ca, cert, key, expect string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "doctor HOST[:PORT]",
		Short: "Say why a TLS handshake with a server fails, and what to do",
		Long: `Connects to a server, prints the chain that it serves from the leaf to the root,
and says what is wrong with it, why, and what to do: an unknown authority, an
incomplete chain, a wrong name, an expired certificate, a client certificate
that is missing or that the server does not know, and whatever else ends a
handshake. It works with any TLS server; no instance of Keyturn is needed.

HOST is a name or an address, the port 443 unless it is given, and a URL does as
well. Nothing is sent but the handshake. STARTTLS is not spoken.

The exit code is 0 if there is no error among the findings, 1 if there is one,
and 2 if the command line makes no sense. The causes in the output stay the same
and can be looked for, best with --output json.

After a rotation, --expect FILE tells whether the server has taken it over. If it
has, and some client still sees the old certificate, that client's connection is
older than the rotation: connections keep the certificate they were made with.`,
		Example: `  keyturn doctor www.example.com
  keyturn doctor localhost:8443 --ca ca.pem
  keyturn doctor 10.0.0.7:443 --servername www.example.com    one server of several
  keyturn doctor db.example:5433 --ca ca.pem --cert client.pem --key client.key
  keyturn doctor www.example.com --expect fullchain.pem       after a renewal`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, to []string) error {
			asJSON, err := formatOf(cmd)
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return usagef("--timeout is %v: it has to be above 0", timeout)
			}
			address, err := addressOf(to[0])
			if err != nil {
				return err
			}
			o := doctor.Options{Timeout: timeout}
			for _, read := range []func() error{
				func() (err error) { o.ServerName, err = serverNameOf(cmd, serverName); return },
				func() (err error) { o.Roots, err = rootsOf(ca); return },
				func() (err error) { o.Certificate, err = keyPairOf(cert, key); return },
				func() (err error) { o.Expect, err = expectOf(expect); return },
			} {
				if err := read(); err != nil {
					return &usageError{err}
				}
			}
			return tell(cmd, asJSON, doctor.Examine(cmd.Context(), address, o))
		},
	}
	f := cmd.Flags()
	f.StringVar(&serverName, "servername", "", "name to ask for (SNI) and to find in the certificate (default: HOST)")
	f.StringVar(&ca, "ca", "", "PEM `FILE` of the roots to trust (default: the system's)")
	f.StringVar(&cert, "cert", "", "PEM `FILE` of a client certificate and its chain, to show if the server asks")
	f.StringVar(&key, "key", "", "PEM `FILE` of its private key (default: the file of --cert)")
	f.StringVar(&expect, "expect", "", "PEM `FILE` of the certificate that ought to be served")
	f.DurationVar(&timeout, "timeout", 10*time.Second, "give up after this long")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// tell prints the report and returns an error if there is one in it.
func tell(cmd *cobra.Command, asJSON bool, r *doctor.Report) error {
	var err error
	if asJSON {
		err = printJSON(cmd, r)
	} else {
		_, err = fmt.Fprint(cmd.OutOrStdout(), r)
	}
	if err != nil || !r.Failed() {
		return err
	}
	var causes []string
	for _, f := range r.Findings {
		if f.Severity == doctor.Error {
			causes = append(causes, string(f.Cause))
		}
	}
	return fmt.Errorf("%s: %s", r.Address, strings.Join(causes, ", "))
}

// addressOf makes HOST:PORT of the argument, with an international name in A-labels.
func addressOf(arg string) (string, error) {
	address, err := doctor.ParseAddress(arg)
	if err != nil {
		return "", &usageError{errors.New(strings.TrimPrefix(err.Error(), "doctor: "))}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", &usageError{err}
	}
	if host, err = toASCII(host); err != nil {
		return "", &usageError{err}
	}
	return net.JoinHostPort(host, port), nil
}

// toASCII converts an international name. Others stay as they are, since a server may
// have a name that no certificate can.
func toASCII(name string) (string, error) {
	if strings.IndexFunc(name, func(r rune) bool { return r > 0x7f }) < 0 {
		return name, nil
	}
	return names.Normalize(name)
}

func serverNameOf(cmd *cobra.Command, name string) (string, error) {
	if !cmd.Flags().Changed("servername") {
		return "", nil
	}
	if ip := net.ParseIP(name); strings.Trim(name, ".") == "" || ip == nil && strings.ContainsAny(name, "/:@ ") {
		return "", fmt.Errorf("--servername is %.100q: it is a name alone, without a port", name)
	}
	return toASCII(name)
}

// rootsOf reads the roots; nil are the system's.
func rootsOf(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	list, err := certificatesOf("--ca", file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool, nil
}

func expectOf(file string) (*x509.Certificate, error) {
	if file == "" {
		return nil, nil
	}
	list, err := certificatesOf("--expect", file)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

func keyPairOf(cert, key string) (*tls.Certificate, error) {
	switch {
	case cert == "" && key == "":
		return nil, nil
	case cert == "":
		return nil, errors.New("--key is given without --cert")
	}
	chain, err := readPEM("--cert", cert)
	if err != nil {
		return nil, err
	}
	private := chain
	if key != "" {
		if private, err = readPEM("--key", key); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(chain, private)
	switch {
	case err != nil && bytes.Contains(private, []byte("ENCRYPTED")): // in both kinds of header
		return nil, fmt.Errorf("the private key in %s is encrypted: decrypt it first, as with openssl pkey", cmp.Or(key, cert))
	case err != nil && key == "":
		return nil, fmt.Errorf("--cert %s: %w; give the file of its private key with --key", cert, err)
	case err != nil:
		return nil, fmt.Errorf("--cert %s and --key %s: %w", cert, key, err)
	}
	return &pair, nil
}

// certificatesOf reads the certificates of a file, at least one. Other blocks are
// skipped.
func certificatesOf(flag, file string) ([]*x509.Certificate, error) {
	text, err := readPEM(flag, file)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s %s: certificate %d: %w", flag, file, len(list)+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s %s: there is no certificate in PEM (-----BEGIN CERTIFICATE-----) in it", flag, file)
	}
	return list, nil
}

// readPEM reads a file of at most 4 MiB, which is ten times the roots of a system.
func readPEM(flag, file string) ([]byte, error) {
	const most = 4 << 20
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	case len(text) > most:
		return nil, fmt.Errorf("%s %s: it is larger than 4 MiB", flag, file)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), nil // a byte order mark
}
