// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
)

// healing is how long a fleet gets to find out that its bus went back and to mend
// that: beacons come once a minute. It is no measure, as patience is none.
const healing = 4 * time.Minute

// A fleetState is what "status" prints, as far as the tests look at it.
type fleetState struct {
	Certificates []struct {
		ID                string
		Epoch, Generation uint64
		Members, Served   int
	}
	Members []struct {
		Name    string
		Differs bool
		Unknown []string
	}
}

func (s *sandbox) fleetState() (f fleetState, err error) {
	out, err := s.try("status", "--group", "web", "--output", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &f)
	}
	return f, err
}

// head is the place of the newest copy of any of these certificates.
func (w *web) head(ids []string) (seq uint64) {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log := w.bus(t, &instance{nats: w.nats})
	for _, id := range ids {
		entry, err := log.Get(ctx, event.CertificateKey("web", id))
		if err != nil {
			t.Fatal(err)
		}
		seq = max(seq, entry.Position.Seq)
	}
	return seq
}

// A loss is what a bus forgets that is put back to what it was.
type loss struct {
	kept          string         // the copy of the bus's directory
	lost          map[string]row // the renewed, by id, as they were when it was put back
	below, same   string         // ids; renewed to a lower and to the same version afterwards
	above         string         // and to a higher one
	removed, made row            // removed and made since
	head          uint64         // where the log ended at least
	histories     []map[string]map[string]bool
}

// moveOn copies the bus, and has it go on for more than 20 entries.
func (w *web) moveOn() *loss {
	t := w.t
	t.Helper()
	l := &loss{kept: filepath.Join(t.TempDir(), "bus"), lost: make(map[string]row)}
	w.manager.stop(t, sigterm)
	copyDir(t, filepath.Join(w.data, "bus"), l.kept)
	w.serve()
	rows := w.rows()
	l.removed, rows = rows[0], rows[1:]
	for range 2 {
		for _, c := range rows {
			if _, err := w.renew(c.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.allConverged()
	l.histories = append(l.histories, w.histories())
	w.watch.remove(l.removed.Names[0], w.replicas)
	w.keyturn("cert", "rm", l.removed.ID)
	w.isRemoved(l.removed)
	const late = "late.web.example"
	if _, err := w.mk(late); err != nil {
		t.Fatal(err)
	}
	w.allConverged()
	w.watch.add(late)
	for _, c := range w.rows() {
		if c.Names[0] == late {
			l.made = c
		} else {
			l.lost[c.ID] = c
		}
	}
	l.below, l.same, l.above = rows[0].ID, rows[1].ID, rows[2].ID
	l.head = w.head([]string{l.made.ID, l.below})
	l.histories = append(l.histories, w.histories())
	return l
}

// isRemoved waits until no replica serves a certificate.
func (w *web) isRemoved(c row) {
	w.t.Helper()
	for _, r := range w.replicas {
		eventually(w.t, c.ID+" on "+r.name, func() error {
			if _, err := r.client(c.Names[0]).handshake(); err == nil {
				return errors.New("it is served")
			}
			return nil
		})
	}
}

// putBack replaces the bus by what it was. The caller starts it.
func (w *web) putBack(l *loss) {
	w.t.Helper()
	w.manager.stop(w.t, sigterm)
	dir := filepath.Join(w.data, "bus")
	if err := os.RemoveAll(dir); err != nil {
		w.t.Fatal(err)
	}
	copyDir(w.t, l.kept, dir)
}

// advance has the bus that was put back make what is new, until it is longer
// than it was.
func (w *web) advance(l *loss) {
	t := w.t
	t.Helper()
	for id, n := range map[string]int{l.below: 1, l.same: 2, l.above: 3} {
		for range n {
			if _, err := w.renew(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	id, err := w.mk("new.web.example")
	if err != nil {
		t.Fatal(err)
	}
	for w.head([]string{id}) <= l.head {
		if _, err := w.renew(id); err != nil {
			t.Fatal(err)
		}
	}
}

// mended returns nil once everything is served that the managers say, what was
// lost was made anew in another epoch, and what cannot be is shown.
func (w *web) mended(l *loss) error {
	f, err := w.fleetState()
	if err != nil {
		return err
	}
	for _, c := range f.Certificates {
		lost, ok := l.lost[c.ID]
		switch {
		case c.ID == l.removed.ID:
			return fmt.Errorf("%s, which was removed, is managed again", c.ID)
		case c.Served != len(w.replicas):
			return fmt.Errorf("%s: %d.%d is served by %d of %d", c.ID, c.Epoch, c.Generation, c.Served, c.Members)
		case ok && c.ID != l.above && c.Epoch <= lost.Epoch:
			return fmt.Errorf("%s: %d.%d was lost, and it is at %d.%d", c.ID, lost.Epoch, lost.Generation, c.Epoch, c.Generation)
		}
	}
	for _, m := range f.Members {
		if !m.Differs || !slices.Contains(m.Unknown, l.made.ID) {
			return fmt.Errorf("%s serves %s, of which the bus knows nothing; differs is %t, unknown %v", m.Name, l.made.ID, m.Differs, m.Unknown)
		}
	}
	if len(f.Certificates) != len(l.lost)+1 || len(f.Members) != len(w.replicas) {
		return fmt.Errorf("%d certificates and %d replicas are known", len(f.Certificates), len(f.Members))
	}
	return nil
}

// waitMended waits for it, and logs when what was noticed.
func (w *web) waitMended(l *loss) {
	t := w.t
	t.Helper()
	began := time.Now()
	noticed := time.Duration(0)
	var err error
	for deadline := began.Add(healing); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if noticed == 0 && strings.Contains(w.manager.err.String(), "the log went back: its epoch is raised") {
			noticed = time.Since(began)
		}
		if err = w.mended(l); err == nil {
			break
		}
	}
	if noticed == 0 {
		t.Error("no manager says that the log went back")
	}
	if err != nil {
		t.Fatalf("after %v: %v", healing, err)
	}
	t.Logf("the bus that went back was noticed after %v, and mended after %v", seconds(noticed), seconds(time.Since(began)))
	if text := w.keyturn("status"); !strings.Contains(text, "holds what the bus does not know: "+l.made.ID) {
		t.Errorf("status does not show what the bus does not know:\n%s", text)
	}
	w.allConverged()
	w.isRemoved(l.removed)
	for _, r := range w.replicas {
		if err := r.client(l.made.Names[0]).sees(l.made.Serial); err != nil {
			t.Errorf("%s, of which the bus knows nothing: %v", r.name, err)
		}
	}
}

// TestBusWentBack puts the bus back to an older copy of its directory, under
// replicas that run and are watched, and goes on from there, past the place where
// it had been: everything that was lost is made anew, without anybody's doing.
func TestBusWentBack(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 10, 3)
	l := w.moveOn()
	w.putBack(l)
	w.serve()
	w.advance(l)
	w.waitMended(l)
	w.watch.check(t, append(l.histories, w.histories())...)
}

// TestBusWentBackUnseen is the same, but no replica reaches the bus before it is
// past that place again: nothing about it looks wrong to them, but for what the
// managers' beacons say.
func TestBusWentBackUnseen(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 10, 3)
	l := w.moveOn()
	w.putBack(l)
	here := w.nats
	w.nats = freeAddr(t)
	w.serve()
	w.advance(l)
	w.manager.stop(t, sigterm)
	w.nats = here
	w.serve()
	w.waitMended(l)
	w.watch.check(t, append(l.histories, w.histories())...)
}
