// SPDX-License-Identifier: Apache-2.0

// Server is step-ca, an ACME CA of Smallstep's, reduced to what tests need of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/ca"
	_ "github.com/smallstep/certificates/cas/softcas" // signs with keys in files
)

func main() {
	// The CA knows these as variables of its packages: one process, one CA.
	flag.IntVar(&acme.InsecurePortHTTP01, "http-port", 80, "port on which http-01 is looked for")
	flag.IntVar(&acme.InsecurePortTLSALPN01, "tls-port", 443, "port on which tls-alpn-01 is looked for")
	dns := flag.String("dns", "", "HOST:PORT of the DNS server that is asked; empty for the system's")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: server [flags] CONFIG")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if *dns != "" {
		net.DefaultResolver.PreferGo = true
		net.DefaultResolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, *dns)
		}
	}
	if err := run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// run serves the CA of a configuration file, in the form of step-ca's ca.json, until
// it fails.
func run(file string) error {
	cfg, err := config.LoadConfiguration(file)
	if err != nil {
		return err
	}
	authority, err := ca.New(cfg, ca.WithConfigFile(file), ca.WithQuiet(true))
	if err != nil {
		return err
	}
	if err := authority.Run(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
