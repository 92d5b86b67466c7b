// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
	"github.com/keyturn/keyturn/manager"
)

func newCA() *cobra.Command {
	return addConnectFlags(group("ca", "Make and use a built-in CA",
		`A built-in CA is an issuer of type local in the shared configuration: a root, which
clients trust, and an intermediate, which signs. Its keys lie on the bus, sealed to
the managers, and never leave it. "keyturn cert mk" makes certificates of it that
managers renew; "keyturn ca sign" signs a request that somebody else made.

Which one is meant says --issuer; without it, it is the default issuer, or the first
of type local.

  keyturn ca init internal                     make it
  keyturn ca export root --out root.pem        what clients trust
  keyturn ca sign printer.csr > printer.pem    sign a request
  keyturn ca revoke printer.pem                take that back
  keyturn ca export crl --out ca.crl           the list of what is revoked`,
		newCAInit(), newCAShow(), newCAExport(), newCASign(), newCARevoke(), newCALs()))
}

// addCAFlag adds --issuer to a command that is about one CA.
func addCAFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("issuer", "", "the CA, by its name in the shared configuration (default: the default issuer, or the first of type local)")
	completeIssuerFlag(cmd)
	return cmd
}

// onCA runs work with a manager, and the name that --issuer gives.
func onCA(cmd *cobra.Command, work func(ctx context.Context, m *manager.Manager, name string) error) error {
	name, _ := cmd.Flags().GetString("issuer")
	if name != "" {
		if err := event.CheckName(name); err != nil {
			return usagef("--issuer: %w", err)
		}
	}
	return withManager(cmd, func(ctx context.Context, m *manager.Manager) error { return work(ctx, m, name) })
}

// A caSpec is what the flags of "ca init" say of a CA.
type caSpec struct {
	name, key, crlURL          string
	lifetime, maxLifetime      string
	rootLifetime, intermediate string
	permitted, excluded        policy.Names
}

// addFlags adds them.
func (s *caSpec) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.name, "name", "", "starts the names of root and intermediate, at most 38 characters (default: Keyturn)")
	f.StringVar(&s.key, "key", "", "type of the CA's own keys: "+keyTypes(" ")+" (default: "+issuer.ECDSAP256.String()+")")
	f.StringVar(&s.lifetime, "lifetime", "", "of a certificate that asks for none (default: 30d)")
	f.StringVar(&s.maxLifetime, "max-lifetime", "", "longer wishes are cut (default: 90d)")
	f.StringVar(&s.rootLifetime, "root-lifetime", "", "of the root (default: 3650d)")
	f.StringVar(&s.intermediate, "intermediate-lifetime", "", "of the intermediate (default: 1825d)")
	f.StringSliceVar(&s.permitted.DNS, "permit-dns", nil, "name constraint for good: this domain and all below it; others are excluded")
	f.StringSliceVar(&s.permitted.IP, "permit-ip", nil, "name constraint for good: this range of addresses; others are excluded")
	f.StringSliceVar(&s.permitted.URI, "permit-uri", nil, "name constraint for good: URIs with this host, or after a dot with those below it")
	f.StringSliceVar(&s.excluded.DNS, "exclude-dns", nil, "name constraint for good: not this domain and all below it")
	f.StringSliceVar(&s.excluded.IP, "exclude-ip", nil, "name constraint for good: not this range of addresses")
	f.StringSliceVar(&s.excluded.URI, "exclude-uri", nil, "name constraint for good: not URIs with this host")
	f.StringVar(&s.crlURL, "crl-url", "", "where clients find the list of what is revoked; it stands in every certificate")
	completeFlag(cmd, "key", strings.Fields(keyTypes(" "))...)
}

// settings returns what was asked for; nil if nothing was. The error is one of usage.
func (s *caSpec) settings() (*config.LocalCA, error) {
	c := &config.LocalCA{Name: s.name, Permitted: s.permitted, Excluded: s.excluded, CRLURL: s.crlURL}
	given := s.name != "" || s.key != "" || s.crlURL != "" || !s.permitted.Empty() || !s.excluded.Empty()
	if s.key != "" {
		key, err := issuer.ParseKeyType(s.key)
		if err != nil {
			return nil, usagef("--key: %w", err)
		}
		c.Key = key
	}
	for _, d := range []struct {
		flag, text string
		to         *config.Duration
	}{
		{"lifetime", s.lifetime, &c.Lifetime},
		{"max-lifetime", s.maxLifetime, &c.MaxLifetime},
		{"root-lifetime", s.rootLifetime, &c.RootLifetime},
		{"intermediate-lifetime", s.intermediate, &c.IntermediateLifetime},
	} {
		if d.text == "" {
			continue
		}
		given = true
		var err error
		if *d.to, err = config.ParseDuration(d.text); err != nil {
			return nil, usagef("--%s: %w", d.flag, err)
		}
	}
	if !given {
		return nil, nil
	}
	if _, err := config.AddIssuer(nil, "ca", config.Issuer{Type: "local", Local: c}); err != nil {
		return nil, usagef("these settings will not do: %w", err)
	}
	return c, nil
}

func newCAInit() *cobra.Command {
	var s caSpec
	cmd := &cobra.Command{
		Use:   "init NAME",
		Short: "Make a built-in CA",
		Long: `Adds an issuer of type local to the shared configuration, which it begins if there is
none, and makes its keys. One that stands there already and was never used is made
as it is configured.

Name, key type and name constraints are for good: they stand in the CA's
certificates. Constraints bind every client, even if the CA's keys were stolen. Where
domains are permitted, addresses and URIs are not limited by that: --exclude-ip
0.0.0.0/0,::/0 excludes all addresses. All other settings can be changed with
"keyturn conf update", and a policy be added there: which names, groups and usages it
signs.`,
		Example: "  keyturn ca init internal --name 'Example Inc' --permit-dns internal.example,example.net --permit-ip 10.0.0.0/8",
		Args: func(_ *cobra.Command, names []string) error {
			if len(names) != 1 {
				return usagef("one NAME for the issuer is needed, such as internal, not %d", len(names))
			}
			if err := event.CheckName(names[0]); err != nil {
				return usagef("the issuer: %w", err)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, names []string) error {
			settings, err := s.settings()
			if err != nil {
				return err
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				ca, err := m.InitCA(ctx, names[0], settings)
				if err != nil {
					return err
				}
				row := caDetailOf(ca)
				return done(cmd, row, `issuer %[1]s is made: %[2]s, until %[3]s
SHA-256 of the root: %[4]s
What clients trust:             keyturn ca export root --issuer %[1]s --out root.pem
A certificate that is renewed:  keyturn cert mk NAME --issuer %[1]s`, ca.Name, row.Root.Subject, stamp(row.Root.NotAfter), row.Root.SHA256)
			})
		},
	}
	s.addFlags(cmd)
	return cmd
}

// caDetail is everything about a built-in CA.
type caDetail struct {
	Issuer       string        `json:"issuer"`
	Root         authorityRow  `json:"root"`
	Intermediate authorityRow  `json:"intermediate"`
	Permitted    *namesRow     `json:"permitted,omitempty"` // name constraints; absent: none, as with those below
	Excluded     *namesRow     `json:"excluded,omitempty"`
	Policy       *caPolicyRow  `json:"policy,omitempty"`
	CRL          revocationRow `json:"crl"`
	SignedByHand int           `json:"signed_by_hand"`
}

type authorityRow struct {
	Subject    string    `json:"subject"`
	Key        string    `json:"key"`
	Serial     string    `json:"serial"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	PathLength int       `json:"path_length"`
	SHA256     string    `json:"sha256"`
}

type namesRow struct {
	DNS []string `json:"dns,omitempty"`
	IP  []string `json:"ip,omitempty"`
	URI []string `json:"uri,omitempty"`
}

type caPolicyRow struct {
	namesRow
	Groups []string `json:"groups,omitempty"`
	Usages []string `json:"usages,omitempty"`
}

type revocationRow struct {
	Number  uint64 `json:"number"` // of the newest list; 0: none was made
	Revoked int    `json:"revoked"`
}

func caDetailOf(ca *manager.CAInfo) caDetail {
	d := caDetail{
		Issuer: ca.Name, Root: authorityRowOf(ca.Root), Intermediate: authorityRowOf(ca.Intermediate),
		Permitted: namesRowOf(ca.Permitted), Excluded: namesRowOf(ca.Excluded),
		CRL: revocationRow{Number: ca.List},
	}
	if p := ca.Policy; !p.Names.Empty() || len(p.Groups)+len(p.Usages) > 0 {
		d.Policy = &caPolicyRow{namesRow(p.Names), p.Groups, p.Usages}
	}
	for _, r := range ca.Records {
		if !r.Signed.IsZero() {
			d.SignedByHand++
		}
		if !r.Revoked.IsZero() {
			d.CRL.Revoked++
		}
	}
	return d
}

func authorityRowOf(c *x509.Certificate) authorityRow {
	return authorityRow{
		Subject: c.Subject.CommonName, Key: issuer.KeyTypeOf(c.PublicKey).String(), Serial: fmt.Sprintf("%x", c.SerialNumber.Bytes()),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, PathLength: c.MaxPathLen, SHA256: fmt.Sprintf("%x", sha256.Sum256(c.Raw)),
	}
}

func namesRowOf(n policy.Names) *namesRow {
	if n.Empty() {
		return nil
	}
	row := namesRow(n)
	return &row
}

// lines are the detail for people.
func (d caDetail) lines() [][2]string {
	all := [][2]string{{"Issuer", d.Issuer}}
	for _, a := range []struct {
		title string
		authorityRow
	}{{"Root", d.Root}, {"Intermediate", d.Intermediate}} {
		all = append(all, [][2]string{
			{a.title, a.Subject},
			{"  key", a.Key},
			{"  serial", a.Serial},
			{"  valid", stamp(a.NotBefore) + " to " + stamp(a.NotAfter)},
			{"  path length", fmt.Sprint(a.PathLength)},
			{"  SHA-256", a.SHA256},
		}...)
	}
	for _, n := range []struct {
		title string
		*namesRow
	}{{"Permitted", d.Permitted}, {"Excluded", d.Excluded}} {
		if n.namesRow != nil {
			all = append(all, [2]string{n.title, policy.Names(*n.namesRow).String()})
		}
	}
	if p := d.Policy; p != nil {
		all = append(
			all,
			[2]string{"Policy: names", cmp.Or(policy.Names(p.namesRow).String(), "all")},
			[2]string{"  groups", cmp.Or(strings.Join(p.Groups, ", "), "all")},
			[2]string{"  usages", cmp.Or(strings.Join(p.Usages, ", "), "server, client")},
		)
	}
	return append(all, [2]string{"Signed by hand", fmt.Sprint(d.SignedByHand)}, [2]string{"Revoked", fmt.Sprintf("%d, the newest list has number %d", d.CRL.Revoked, d.CRL.Number)})
}

func newCAShow() *cobra.Command {
	return addCAFlag(&cobra.Command{
		Use:   "show",
		Short: "Show a built-in CA: certificates, constraints, policy, what is revoked",
		Long: `Shows root and intermediate, the name constraints in them, what the policy in the
shared configuration allows, and how much was signed by hand and revoked. A CA that
is configured and was never used is made.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onCA(cmd, func(ctx context.Context, m *manager.Manager, name string) error {
				ca, err := m.CA(ctx, name)
				if err != nil {
					return err
				}
				d := caDetailOf(ca)
				if asJSON, err := formatOf(cmd); err != nil || asJSON {
					return printJSON(cmd, d)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				for _, l := range d.lines() {
					fmt.Fprintf(w, "%s\t%s\n", l[0], l[1])
				}
				return w.Flush()
			})
		},
	})
}
