// SPDX-License-Identifier: Apache-2.0

// Command keyturn keeps TLS certificates fresh where they are used. See
// "keyturn --help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/lambda"
	"github.com/keyturn/keyturn/internal/printable"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// A second signal ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if lambda.Running() {
		if err := runLambda(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "keyturn: %v\n", err)
			os.Exit(exitFailed)
		}
		return
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs a command.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) (*cobra.Command, error) {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	return root.ExecuteContextC(ctx)
}

// run runs a command, says why it failed, and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	cmd, err := execute(ctx, args, in, out, errOut)
	switch usage := (*usageError)(nil); {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "keyturn: %s\nRun '%s --help' for usage.\n", lines(err), cmd.CommandPath())
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintf(errOut, "keyturn: interrupted: %s\n", lines(err))
		return exitFailed
	default:
		fmt.Fprintf(errOut, "keyturn: %s\n", lines(err))
		return exitFailed
	}
}

// lines is an error's text, in which others, such as a CA or a DNS service, may have
// had a say, for a terminal: line by line.
func lines(err error) string {
	all := strings.Split(err.Error(), "\n")
	for i, line := range all {
		all[i] = printable.Line(line)
	}
	return strings.Join(all, "\n")
}

// A usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, v ...any) error { return &usageError{fmt.Errorf(format, v...)} }

// args makes cobra's complaints about arguments usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyturn",
		Short: "Keeps TLS certificates fresh where they are used",
		Long: `Keyturn keeps TLS certificates fresh where they are used: it obtains them from
a CA, carries them sealed and signed over a durable bus, and swaps them inside
running servers with no restart.

See it work, with no configuration:   keyturn serve --dev`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          onlyCommands,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.PersistentFlags().StringP("output", "o", "table", "output format: table or json")
	completeFlag(root, "output", "table", "json")
	root.Version = thisVersion().Version
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		_, err := formatOf(cmd)
		return err
	}
	root.AddCommand(newServe(), newCert(), newImport(), newIssuer(), newCA(), newLimits(), newConf(), newGroup(), newReplica(), newManager(), newBus(), newProxy(),
		newStatus(), newRenew(), newDoctor(), newVersion(), newMan(root))
	root.SetHelpCommand(newHelp(root))
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		c.Args = onlyCommands
		c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	return root
}

// completeFlag makes the shell offer a flag's values.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// onlyCommands refuses what is not the name of a subcommand.
func onlyCommands(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasParent():
		return usagef("unknown command %q", args[0])
	}
	return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
}

// newHelp makes the help command. Unlike cobra's, it fails where there is
// nothing to help with.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, path []string) error {
			c, rest, err := root.Find(path)
			if err != nil || len(rest) > 0 {
				return usagef("unknown command %q", strings.Join(path, " "))
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// group makes a command that only has subcommands.
func group(use, short, long string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(sub...)
	return c
}
