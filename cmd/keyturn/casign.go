// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

// maxInput is how much of a file is read, in bytes: a request or a certificate has
// a few thousand.
const maxInput = 1 << 20

// readInput reads a file, or standard input where it is "-".
func readInput(cmd *cobra.Command, file string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = errors.New("it is too long")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return text, nil
}

// block returns the first PEM block of one of the types, or the text itself if it is
// no PEM.
func block(file string, text []byte, what string, types ...string) ([]byte, error) {
	b, _ := pem.Decode(text)
	if b == nil {
		return text, nil
	}
	for _, t := range types {
		if b.Type == t {
			return b.Bytes, nil
		}
	}
	return nil, fmt.Errorf("%s is a %.40q, not %s", file, b.Type, what)
}

// signedRow is what was signed by hand.
type signedRow struct {
	Serial   string    `json:"serial"`
	Names    []string  `json:"names"`
	NotAfter time.Time `json:"not_after"`
	ChainPEM string    `json:"chain_pem"`
}

func newCASign() *cobra.Command {
	var lifetime string
	cmd := addCAFlag(&cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a certificate request, and print the chain",
		Long: `Signs a request (PKCS #10, PEM or DER; "-" is standard input) by the CA's name
constraints and policy, and prints the certificate and the intermediate. From the
request come the key, the subject alternative names, and, if it asks for them, the
extended key usages; its subject and all else are left out.

It is written down before it is printed, so that "keyturn ca ls" shows it and
"keyturn ca revoke" can take it back. Nobody renews it: "keyturn cert mk" makes
certificates that managers renew.`,
		Example: "  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj / \\\n" +
			"    -addext subjectAltName=DNS:printer.example.com -out printer.csr\n  keyturn ca sign printer.csr > printer.pem",
		Args: func(_ *cobra.Command, files []string) error {
			if len(files) != 1 {
				return usagef("one FILE with a certificate request is needed, not %d", len(files))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, files []string) error {
			var want config.Duration
			var err error
			if lifetime != "" {
				if want, err = config.ParseDuration(lifetime); err != nil {
					return usagef("--lifetime: %w", err)
				}
			}
			csr, err := readRequest(cmd, files[0])
			if err != nil {
				return err
			}
			return onCA(cmd, func(ctx context.Context, m *manager.Manager, name string) error {
				chain, err := m.SignByHand(ctx, name, csr, time.Duration(want))
				if err != nil {
					return err
				}
				return printSigned(cmd, chain)
			})
		},
	})
	cmd.Flags().StringVar(&lifetime, "lifetime", "", "how long it is valid, such as 30d; max_lifetime of the CA cuts it (default: the CA's)")
	return cmd
}

func readRequest(cmd *cobra.Command, file string) (*x509.CertificateRequest, error) {
	text, err := readInput(cmd, file)
	if err != nil {
		return nil, err
	}
	der, err := block(file, text, "a certificate request", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%s is not a certificate request (PKCS #10): %w", file, err)
	}
	return csr, nil
}

func printSigned(cmd *cobra.Command, chain [][]byte) error {
	asJSON, err := formatOf(cmd)
	if err != nil {
		return err
	}
	if !asJSON {
		_, err = io.WriteString(cmd.OutOrStdout(), chainPEM(chain))
		return err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	return printJSON(cmd, signedRow{fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), issuer.NamesOf(leaf), leaf.NotAfter, chainPEM(chain)})
}

// caRevokedRow is what was revoked.
type caRevokedRow struct {
	Issuer     string `json:"issuer"`
	Serial     string `json:"serial"`
	Reason     string `json:"reason"`
	ID         string `json:"id,omitempty"` // of the managed certificate, if it is one's
	Generation uint64 `json:"generation,omitempty"`
}

func newCARevoke() *cobra.Command {
	var reason string
	cmd := addCAFlag(&cobra.Command{
		Use:   "revoke SERIAL|FILE",
		Short: "Revoke a certificate that the CA signed",
		Long: `Revokes a certificate, by its serial number (hexadecimal, as "keyturn ca ls", "keyturn
cert history" and openssl print it) or by the certificate itself (PEM or DER). By the
serial number, one that was signed by hand is found, and one in the history of a managed
certificate, whose newest generation is then due at once, as after "keyturn cert revoke".

It is on every list from now on: "keyturn ca export crl" makes one, and who has the
key can go on to use it wherever clients look at no list.`,
		Example: "  keyturn ca revoke printer.pem --reason superseded\n  keyturn ca revoke 5f3a9c71d2e84b06a1c7f0d95e2b8834 --reason key-compromise",
		Args: func(_ *cobra.Command, which []string) error {
			if len(which) != 1 {
				return usagef("one SERIAL or FILE is needed, not %d: `keyturn ca ls` lists what was signed by hand", len(which))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, which []string) error {
			why, err := issuer.ParseReason(reason)
			if err != nil {
				return usagef("--reason: %w", err)
			}
			serial, ok := parseSerial(which[0])
			var leaf *x509.Certificate
			if !ok {
				if leaf, err = readCertificate(cmd, which[0]); err != nil {
					return err
				}
			}
			return onCA(cmd, func(ctx context.Context, m *manager.Manager, name string) error {
				var r *manager.RevokedCertificate
				if leaf != nil {
					r, err = m.RevokeLeaf(ctx, name, leaf, why)
				} else {
					r, err = m.RevokeSerial(ctx, name, serial, why)
				}
				if err != nil {
					return err
				}
				row := caRevokedRow{r.Issuer, fmt.Sprintf("%x", r.Serial), why.String(), r.ID, r.Generation}
				of := ""
				if r.ID != "" {
					of = fmt.Sprintf(", generation %d of %s", r.Generation, r.ID)
				}
				return done(cmd, row, "%s%s is revoked: %s\nIt is on the next list: keyturn ca export crl --issuer %s", row.Serial, of, row.Reason, r.Issuer)
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", issuer.Unspecified.String(), "what the list says: "+strings.Join(issuer.ReasonNames(), ", "))
	completeFlag(cmd, "reason", issuer.ReasonNames()...)
	return cmd
}

// parseSerial reads a serial number as openssl and browsers print it.
func parseSerial(text string) ([]byte, bool) {
	text = strings.TrimPrefix(strings.ToLower(text), "serial=")
	text = strings.ReplaceAll(strings.TrimPrefix(text, "0x"), ":", "")
	if len(text)%2 == 1 {
		text = "0" + text
	}
	serial, err := hex.DecodeString(text)
	serial = bytes.TrimLeft(serial, "\x00")
	return serial, err == nil && len(serial) > 0
}

func readCertificate(cmd *cobra.Command, file string) (*x509.Certificate, error) {
	text, err := readInput(cmd, file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%.80q is neither a serial number in hexadecimal nor a file", file)
	}
	if err != nil {
		return nil, err
	}
	der, err := block(file, text, "a certificate", "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s is not a certificate: %w", file, err)
	}
	return leaf, nil
}

// caRecordRow is a certificate that a CA remembers.
type caRecordRow struct {
	Serial  string     `json:"serial"`
	Names   string     `json:"names"`
	Expires time.Time  `json:"expires"`
	Signed  *time.Time `json:"signed,omitempty"`  // by hand; absent: a manager renews it
	Revoked *time.Time `json:"revoked,omitempty"` // absent: it is not
	Reason  string     `json:"reason,omitempty"`
}

func caRecordRowOf(r event.CARecord) caRecordRow {
	row := caRecordRow{Serial: fmt.Sprintf("%x", r.Serial), Names: r.Names, Expires: r.NotAfter}
	if !r.Signed.IsZero() {
		row.Signed = &r.Signed
	}
	if !r.Revoked.IsZero() {
		row.Revoked, row.Reason = &r.Revoked, issuer.Reason(r.Reason).String()
	}
	return row
}

// state says what became of it.
func (r caRecordRow) state() string {
	if r.Revoked == nil {
		return "signed by hand " + stamp(*r.Signed)
	}
	return fmt.Sprintf("revoked %s: %s", stamp(*r.Revoked), r.Reason)
}

func newCALs() *cobra.Command {
	return addCAFlag(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List what a CA signed by hand, and what is revoked",
		Long: `Lists the certificates that "keyturn ca sign" signed, and all that are revoked, until
some time after their end. "keyturn cert ls" lists those that managers renew.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onCA(cmd, func(ctx context.Context, m *manager.Manager, name string) error {
				ca, err := m.CA(ctx, name)
				if err != nil {
					return err
				}
				var rows []caRecordRow
				for _, r := range ca.Records {
					rows = append(rows, caRecordRowOf(r))
				}
				return printList(cmd, rows, []string{"Serial", "Names", "Expires", "State"}, func(r caRecordRow) []string {
					return []string{r.Serial, r.Names, stamp(r.Expires), r.state()}
				})
			})
		},
	})
}
