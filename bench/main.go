// SPDX-License-Identifier: Apache-2.0

// Bench measures Keyturn and its peers side by side, on the same certificates, and
// prints one table: what was done, by whom, what it took, that as a ratio to a limit or
// a peer, and whether a target is met.
//
//	go run -C bench . -quick
//
// The page docs/performance.md says what each row means. The peers are dependencies of
// this module alone: who imports Keyturn does not get them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"time"
)

func main() {
	asChild()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `Measures Keyturn and its peers side by side and prints one table.

Usage: go run -C bench . [flags]

`

// run returns the exit code: 0 if everything was measured, whether fast or not, 1 if
// something failed, 2 if the arguments are wrong.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "do only the works that match this regular `expression`; -list prints them")
	list := flags.Bool("list", false, "print the works and end")
	quick := flags.Bool("quick", false, "small numbers and few rounds: seconds, to see that everything works")
	output := flags.String("output", "table", "`table or json`")
	handshakes := flags.Int("handshakes", 0, "`number` of handshakes while certificates are replaced (default 1,000,000, with -quick 1,000)")
	certificates := flags.Int("certificates", 0, "`number` of certificates that a new replica catches up with (default 100,000, with -quick 50)")
	replicas := flags.Int("replicas", 0, "`number` of replicas in the fleets (default 1,000 for deliveries and 5,000 else, with -quick 5)")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	pattern, err := regexp.Compile(*only)
	switch {
	case err != nil:
		err = fmt.Errorf("-only: %w", err)
	case flags.NArg() > 0:
		err = fmt.Errorf("unknown argument %q", flags.Arg(0))
	case *output != "table" && *output != "json":
		err = fmt.Errorf("-output is %q, want table or json", *output)
	case *handshakes < 0:
		err = fmt.Errorf("-handshakes is %d, want 1 or more", *handshakes)
	case *certificates < 0:
		err = fmt.Errorf("-certificates is %d, want 1 or more", *certificates)
	case *replicas < 0:
		err = fmt.Errorf("-replicas is %d, want 1 or more", *replicas)
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v; see -help\n", err)
		return 2
	}

	b := &bench{scale: full, stderr: stderr}
	if *quick {
		b.scale = small
	}
	if *handshakes > 0 {
		b.handshakes = *handshakes
	}
	if *certificates > 0 {
		b.caughtUp = *certificates
	}
	if *replicas > 0 {
		b.fleet, b.storm = *replicas, *replicas
	}
	if *list {
		for _, w := range b.works() {
			fmt.Fprintln(stdout, w.name)
		}
		return 0
	}
	rows, err := b.measure(pattern)
	write := printTable
	if *output == "json" {
		write = printJSON
	}
	if err := errors.Join(err, write(stdout, rows)); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// A scale says how large the works are.
type scale struct {
	sizes      []int         // numbers of names to choose among
	peers      int           // the most of them that peers hold
	few, many  int           // certificates held while one is replaced
	memory     int           // certificates held lazily
	handshakes int           // while certificates are replaced
	orders     int           // rounds of orders at a CA, one after the other
	renewals   int           // in a batch, several at once
	fleet      int           // replicas to which renewals are brought
	deliveries int           // rounds of it
	storm      int           // replicas that are kept current, or lose their bus
	periods    int           // in which they are kept current
	storms     int           // restarts of the bus
	caughtUp   int           // certificates that a new replica finds
	period     time.Duration // of keeping current, in which each replica asks once whether the server is there
	rounds     int
	slice      time.Duration // of one contender in one round
}

var (
	full = scale{
		sizes: []int{1, 1_000, 100_000, 1_000_000}, peers: 100_000, few: 1_000, many: 1_000_000,
		memory: 100_000, handshakes: 1_000_000, orders: 201, renewals: 32,
		fleet: 1_000, deliveries: 15, storm: 5_000, periods: 5, storms: 3, caughtUp: 100_000, period: 12 * time.Second, rounds: 401, slice: 500 * time.Microsecond,
	}
	small = scale{
		sizes: []int{1, 200}, peers: 200, few: 10, many: 1_000,
		memory: 200, handshakes: 1_000, orders: 3, renewals: 3,
		fleet: 5, deliveries: 2, storm: 5, periods: 1, storms: 1, caughtUp: 50, period: 100 * time.Millisecond, rounds: 3, slice: 200 * time.Microsecond,
	}
)

// A bench is one run of the program.
type bench struct {
	scale
	ca     *authority
	dir    string // for the files of peers that read some
	stderr io.Writer
}

// A work is what -only chooses. What it measured is kept even if it failed.
type work struct {
	name string
	run  func() ([]row, error)
}

func (b *bench) works() []work {
	var works []work
	for _, n := range b.sizes {
		works = append(works, work{"choose among " + thousands(n), func() ([]row, error) { return b.choose(n) }})
	}
	return append(works,
		work{"replace", b.replace},
		work{"reload", b.reload},
		work{"memory", b.memoryHeld},
		work{"handshake", b.handshake},
		work{"proxy", b.proxied},
		work{"order", b.order},
		work{"renew", b.renew},
		work{"issue by the built-in CA", b.private},
		work{"renew by the built-in CA", b.renewPrivate},
		work{"fleet: deliver", b.deliver},
		work{"fleet: keep current", b.current},
		work{"fleet: catch up", b.catchUp},
		work{"fleet: restart the bus", b.restart},
		work{"replace during handshakes", b.turn})
}

func (b *bench) measure(only *regexp.Regexp) (rows []row, err error) {
	if b.ca, err = newAuthority(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "keyturn-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	fmt.Fprintf(b.stderr, "%s %s/%s, %d cores\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	if !slices.ContainsFunc(b.works(), func(w work) bool { return only.MatchString(w.name) }) {
		return nil, fmt.Errorf("-only %q matches no work; see -list", only)
	}
	for _, w := range b.works() {
		if !only.MatchString(w.name) {
			continue
		}
		done := b.stage("%s", w.name)
		more, failed := w.run()
		done()
		rows = append(rows, more...)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", w.name, failed))
		}
	}
	return rows, err
}

// stage says on stderr what is being done, and with the returned function that it was.
func (b *bench) stage(format string, args ...any) (done func()) {
	what, start := fmt.Sprintf(format, args...), time.Now()
	fmt.Fprintf(b.stderr, "%s …\n", what)
	return func() { fmt.Fprintf(b.stderr, "%s: %s\n", what, time.Since(start).Round(time.Millisecond)) }
}
