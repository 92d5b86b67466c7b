// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus/dynamodb"
)

func newBus() *cobra.Command {
	return group("bus", "Prepare the bus, copy it, and get it back",
		`The bus is what carries entries from managers to replicas. "keyturn serve" runs
one of its own, NATS JetStream, which is ready by itself; others are made ready by
"init". What stands on any of them can be written to a file, checked there, and
put on another; what a bus has lost is got back by "restore".`,
		newBusStatus(), newBusAccounts(), group("init", "Make a bus ready", "", newBusInitDynamoDB(), newBusInitNATS()),
		newBusExport(), newBusVerify(), newBusImport(), newBusRestore())
}

func newBusInitDynamoDB() *cobra.Command {
	var table, region, endpoint, profile string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "dynamodb --table TABLE",
		Short: "Make a DynamoDB table that can be a bus",
		Long: `Makes a table in AWS DynamoDB: on demand, with point-in-time recovery and
deletion protection where the service has them. A table that is there already,
with the same keys, is taken as it is.

Credentials and region come from where AWS' own programs take them. Afterwards
the bus is dynamodb://TABLE: "keyturn serve --bus dynamodb://TABLE", or KEYTURN_BUS.`,
		Example:           "  keyturn bus init dynamodb --table keyturn --region eu-central-1",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if table == "" {
				return usagef("--table is needed: the name of the table")
			}
			if timeout <= 0 {
				return usagef("--timeout is %v: it has to be above zero", timeout)
			}
			query := url.Values{}
			for key, value := range map[string]string{"region": region, "endpoint": endpoint, "profile": profile} {
				if value != "" {
					query.Set(key, value)
				}
			}
			at := (&url.URL{Scheme: "dynamodb", Host: table, RawQuery: query.Encode()}).String()
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not done within %v (--timeout)", timeout))
			defer cancel()
			p := newProgress(cmd)
			defer p.end()
			p.say(table, "waiting until the table is active")
			made, err := dynamodb.Init(ctx, at)
			if err != nil {
				return err
			}
			what := "was there already"
			if made {
				what = "is made"
			}
			return done(cmd, map[string]any{"table": table, "created": made, "bus": at}, "table %s %s; the bus is %s", table, what, at)
		},
	}
	f := cmd.Flags()
	f.StringVar(&table, "table", "", "name of the table")
	f.StringVar(&region, "region", "", "AWS region (default: as AWS' programs have it)")
	f.StringVar(&endpoint, "endpoint", "", "URL of the service, where it is not AWS' own")
	f.StringVar(&profile, "profile", "", "AWS profile (default: as AWS' programs have it)")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this time")
	return cmd
}
