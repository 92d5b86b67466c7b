// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/edge"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
)

// minDevLifetime leaves a moment between two renewals.
const minDevLifetime = manager.MinLifetime

// devIssuer is the development CA's name in the shared configuration.
const devIssuer = "dev"

// devNames are the edge's.
var devNames = []string{"localhost", "127.0.0.1", "::1"}

// dev is what --dev adds to an instance.
type dev struct {
	in   *instance
	edge *edge.Edge
	id   string // of the edge's certificate
	// changes waits for startTelling.
	changes <-chan replica.Change
}

// startDev starts CA, replica and edge. The listener is nil where no edge is
// wanted.
func (in *instance) startDev(ctx context.Context, l net.Listener) (*dev, error) {
	d := &dev{in: in}
	if err := d.configure(ctx); err != nil {
		return nil, fmt.Errorf("preparing the development configuration: %w", err)
	}
	if err := d.writeRoot(ctx); err != nil {
		return nil, fmt.Errorf("writing the development CA's certificate: %w", err)
	}
	dir, err := d.join(ctx, "edge")
	if err != nil {
		return nil, err
	}
	if _, err := d.join(ctx, "example-server"); err != nil {
		return nil, err
	}
	changes := make(chan replica.Change, 1024)
	r, err := replica.Open(ctx, replica.Config{
		Dir: dir, Logger: in.logger,
		OnChange: func(c replica.Change) {
			select {
			case changes <- c:
			default: // so many at once that nobody reads their lines
			}
		},
	})
	if err != nil {
		return nil, err
	}
	in.onStop(r.Close)
	in.status.Replica(r)
	in.status.Add(status.Part{Name: "replica", Check: func() error {
		s := r.Status()
		if !s.Following {
			return cmp.Or(s.LastError, errors.New("catching up"))
		}
		return nil
	}})
	d.edge = edge.New(edge.Config{Store: r.Store(), Logger: in.logger})
	d.count()
	if l != nil {
		in.run("edge", l, func() error { return d.edge.ServeTLS(l) })
	}
	if err := d.certificate(ctx, r); err != nil {
		return nil, err
	}
	d.changes = changes
	return d, nil
}

// join returns a directory of the instance's own that has joined the default
// group, as another host would. The bus may listen elsewhere than last time.
func (d *dev) join(ctx context.Context, name string) (string, error) {
	dir := d.in.dir.File(filepath.Join("joined", name))
	if _, err := replica.ReadMembership(dir); err != nil {
		if err := durable.RemoveAll(dir); err != nil { // what a crash left
			return "", err
		}
		t, err := d.in.manager.NewToken(ctx, manager.DefaultGroup, tokenLifetime)
		if err != nil {
			return "", err
		}
		_, err = replica.Join(ctx, replica.JoinConfig{Token: t, Dir: dir, Name: name, Logger: d.in.logger})
		return dir, err
	}
	return dir, durable.WriteFile(filepath.Join(dir, bus.URLFile), []byte(d.in.url+"\n"), durable.PrivateFile)
}

// startTelling prints a line for each turn from now on, those that wait first.
func (d *dev) startTelling() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.tell(ctx)
	}()
	d.in.onStop(func() error {
		cancel()
		<-done
		return nil
	})
}

// configure makes the shared configuration of a new directory. Later on it
// changes the lifetime in it only if --dev-lifetime is given.
func (d *dev) configure(ctx context.Context) error {
	text, at, err := d.in.manager.ConfigText(ctx)
	shared := &config.Shared{DefaultIssuer: devIssuer, Issuers: map[string]config.Issuer{}}
	switch {
	case errors.Is(err, manager.ErrNoConfig):
		shared.Issuers[devIssuer] = config.Issuer{Type: "local", Local: &config.LocalCA{Name: "Keyturn Dev"}}
	case err != nil:
		return err
	default:
		if shared, err = config.ParseShared(text); err != nil {
			return err
		}
	}
	ca := shared.Issuers[devIssuer].Local
	if ca == nil {
		return fmt.Errorf("the shared configuration has no issuer %q of type local any more: put it back with `keyturn conf update`", devIssuer)
	}
	if ca.Lifetime != 0 && !d.in.config.setLifetime {
		d.in.config.devLifetime = time.Duration(ca.Lifetime) // as it was
		return nil
	}
	life := config.Duration(d.in.config.devLifetime)
	if ca.Lifetime == life {
		return nil
	}
	ca.Lifetime = life
	if text, err = shared.Encode(); err != nil {
		return err
	}
	_, err = d.in.manager.UpdateConfig(ctx, text, at)
	return err
}

func (d *dev) writeRoot(ctx context.Context) error {
	roots, err := d.in.manager.Roots(ctx, devIssuer)
	if err != nil {
		return err
	}
	return d.in.dir.WriteRoot(datadir.PEM(roots))
}

// certificate shows what is there from before, and makes the edge's certificate
// at the first start.
func (d *dev) certificate(ctx context.Context, r *replica.Replica) error {
	list, err := d.in.manager.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		d.edge.Set(d.describe(c))
		_, _ = r.Store().Get(c.ID) // opened now, so that the first turn knows the serial before it
	}
	c, err := d.in.manager.Make(ctx, manager.Request{Names: devNames, Issuer: devIssuer})
	var exists *manager.ExistsError
	switch {
	case errors.As(err, &exists):
		d.id = exists.ID
	case err != nil:
		return fmt.Errorf("making the edge's certificate: %w", err)
	default:
		d.id = c.ID
		d.arrives(ctx, r, c)
	}
	return nil
}

// arrives waits until the replica has a certificate that is on the bus, so that
// what is announced is served.
func (d *dev) arrives(ctx context.Context, r *replica.Replica, c *manager.Managed) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for r.Version(c.ID).Less(c.Version) {
		select {
		case <-ctx.Done():
			d.in.logger.Warn("the edge has no certificate yet", "managed_id", c.ID)
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// count adds the edge's handshakes to the metrics.
func (d *dev) count() {
	const name, help = "keyturn_edge_handshakes_total", "TLS handshakes on the edge since the start."
	d.in.status.Counter(name, help, map[string]string{"result": "served"}, func() float64 { n, _ := d.edge.Handshakes(); return float64(n) })
	d.in.status.Counter(name, help, map[string]string{"result": "failed"}, func() float64 { _, n := d.edge.Handshakes(); return float64(n) })
}

func (d *dev) describe(c *manager.Managed) edge.Certificate {
	e := edge.Certificate{
		ID: c.ID, Names: hostsFirst(c.Spec.Names), Issuer: c.Spec.Issuer, Epoch: c.Epoch, Generation: c.Generation, Next: c.RenewAt(),
	}
	if leaf, err := c.Leaf(); err == nil && leaf != nil {
		e.Serial, e.Fingerprint = fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), fmt.Sprintf("%x", sha256.Sum256(leaf.Raw))
		e.NotBefore, e.NotAfter = leaf.NotBefore, leaf.NotAfter
	}
	return e
}

// hostsFirst puts DNS names before addresses: the first one stands for all.
func hostsFirst(names []string) []string {
	hosts := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return net.ParseIP(n) != nil })
	addresses := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return net.ParseIP(n) == nil })
	return append(hosts, addresses...)
}

// tell prints a line for each turn and shows it on the page.
func (d *dev) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case change := <-d.changes:
			d.turn(ctx, change)
		}
	}
}

func (d *dev) turn(ctx context.Context, change replica.Change) {
	if change.Leaf == nil {
		d.edge.Removed(change.ID)
		fmt.Fprintf(d.in.out, "%s  %s is removed\n", clock(time.Now()), change.ID)
		return
	}
	c, err := d.in.manager.Get(ctx, change.ID)
	if ctx.Err() != nil {
		return // it is being stopped in the middle of a turn
	}
	if err != nil {
		d.in.logger.Warn("a turn cannot be described", "managed_id", change.ID, "error", err)
		return
	}
	old := "none"
	if change.Previous != nil {
		old = abbreviate(change.Previous)
	}
	turn := d.edge.Turned(d.describe(c))
	fmt.Fprintf(d.in.out, "%s  %s  generation %d: serial %s -> %s  handshakes %d, failed %d  next turn %s\n",
		clock(turn.At), turn.Names[0], change.Version.Generation, old, abbreviate(change.Leaf), turn.Handshakes, turn.Failed, clock(c.RenewAt()))
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }

// abbreviate prints the start of a serial: enough to tell two apart.
func abbreviate(c *x509.Certificate) string {
	b := c.SerialNumber.Bytes()
	return fmt.Sprintf("%x", b[:min(len(b), 4)])
}

// banner says where everything is and what to do next, ready to be run.
func (d *dev) banner(web net.Addr, l net.Listener) {
	in := d.in
	self, data := selfCommand(), ""
	if dir, err := defaultData(); err != nil || dir != in.dir.Path() {
		data = " --data " + quote(in.dir.Path())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nkeyturn runs, for development. Its state is in %s\n\n", in.dir.Path())
	if l != nil {
		fmt.Fprintf(&b, "  edge    https://%s/   its certificate lives %v and turns at about half of that\n", localURL(l.Addr()), in.config.devLifetime)
	}
	fmt.Fprintf(&b, "  page    http://%s/   the same page, for a browser without the CA\n", localURL(web))
	fmt.Fprintf(&b, "  bus     %s\n\nTry, in another terminal:\n\n", in.url)
	if l != nil {
		fmt.Fprintf(&b, "  curl --cacert %s https://%s/state\n", quote(in.dir.File("ca.pem")), localURL(l.Addr()))
	}
	fmt.Fprintf(&b, "  %s cert ls%s\n", self, data)
	fmt.Fprintf(&b, "  %s cert renew %s%s\n", self, d.id, data)
	if _, err := os.Stat(filepath.Join("examples", "server", "main.go")); err == nil {
		dir := ""
		if data != "" {
			dir = " --dir " + quote(in.dir.File("joined/example-server"))
		}
		fmt.Fprintf(&b, "  go run ./examples/server%s\n", dir)
	}
	b.WriteString("\nCtrl-C stops it. Turns:\n\n")
	fmt.Fprint(in.out, b.String())
}

// localURL is an address as the certificate names it.
func localURL(a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return net.JoinHostPort("localhost", port)
}

// selfCommand is how to run this very program again from the same directory.
func selfCommand() string {
	exe, err := os.Executable()
	if err != nil {
		return "keyturn"
	}
	if strings.Contains(exe, string(filepath.Separator)+"go-build") { // go run builds there
		return "go run ./cmd/keyturn"
	}
	if path, err := exec.LookPath("keyturn"); err == nil {
		if found, err := filepath.EvalSymlinks(path); err == nil && found == exe {
			return "keyturn"
		}
	}
	return quote(exe)
}

// quote quotes for a POSIX shell where that is needed.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
