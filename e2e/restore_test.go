// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// restored is what "bus restore" prints, as far as the tests look at it.
type restored struct {
	Lost, Older, Certificates int
	Epoch                     uint64
	Aside                     string
	Adopted, Unproven         []string
}

// restore runs "bus restore", which has to succeed, and once more, after which
// nothing is missing.
func (w *web) restore(flags ...string) (r restored) {
	t := w.t
	t.Helper()
	run := func() (r restored) {
		args := append([]string{"bus", "restore", "--data", w.data, "--output", "json"}, flags...)
		if err := json.Unmarshal([]byte(w.keyturn(args...)), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r = run()
	if again := run(); again.Lost+again.Older > 0 || again.Epoch != r.Epoch {
		t.Errorf("after %+v it is %+v that is missing", r, again)
	}
	return r
}

// busDir is the directory of the bus.
func (w *web) busDir() string { return filepath.Join(w.data, "bus") }

// detect starts a manager on a damaged bus, and returns how it was noticed that
// something is wrong; "" if it was not. The manager is stopped then.
func (w *web) detect() (how string) {
	t := w.t
	t.Helper()
	p := w.start(keyturn, "serve", "--data", w.data, "--http", "127.0.0.1:0", "--nats", w.nats)
	eventually(t, "what a manager makes of a damaged bus", func() error {
		text := p.err.String()
		for _, sign := range []string{"the log has lost entries that the snapshot", "the log went back", "the bus is not being followed"} {
			if strings.Contains(text, sign) {
				how = sign
				return nil
			}
		}
		switch {
		case p.ended():
			how = "serve refuses"
		case !strings.Contains(text, "all that stands on the bus was read for the snapshot"):
			return errors.New("it does not say anything")
		}
		return nil
	})
	if !p.ended() {
		p.stop(t, sigterm)
	}
	return how
}

// whole checks that everything is managed and served that was, in the same or a
// newer generation.
func (w *web) whole(before []row) {
	t := w.t
	t.Helper()
	after := make(map[string]row)
	for _, c := range w.rows() {
		after[c.ID] = c
	}
	for _, c := range before {
		now := after[c.ID]
		if now.ID == "" || now.Epoch < c.Epoch || now.Epoch == c.Epoch && now.Generation < c.Generation {
			t.Errorf("%s was at %d.%d, and is at %d.%d", c.ID, c.Epoch, c.Generation, now.Epoch, now.Generation)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d certificates are managed; want %d", len(after), len(before))
	}
	w.allConverged()
}

// TestBusRestored destroys the files of the bus in one way after the other, under
// replicas that run and are watched. One command heals each, and no handshake fails.
func TestBusRestored(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 8, 2)
	dayOld := filepath.Join(t.TempDir(), "bus")
	histories := []map[string]map[string]bool{w.histories()}
	for _, c := range []struct {
		name    string
		destroy func()
	}{
		{"a day old", func() {
			if err := os.RemoveAll(w.busDir()); err != nil {
				t.Fatal(err)
			}
			copyDir(t, dayOld, w.busDir())
		}},
		{"truncated", func() { w.truncate() }},
		{"JetStream's files gone", func() {
			if err := os.RemoveAll(filepath.Join(w.busDir(), "jetstream")); err != nil {
				t.Fatal(err)
			}
		}},
		{"gone", func() {
			if err := os.RemoveAll(w.busDir()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Log(c.name)
		if c.name == "a day old" {
			w.manager.stop(t, sigterm)
			copyDir(t, w.busDir(), dayOld)
			w.serve()
		}
		rows := w.rows()
		for range 2 {
			for _, c := range rows {
				if _, err := w.renew(c.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.allConverged()
		rows = w.rows()
		histories = append(histories, w.histories())
		w.manager.stop(t, sigterm)
		c.destroy()
		if how := w.detect(); how == "" {
			t.Errorf("%s: nobody has noticed", c.name)
		} else {
			t.Logf("%s: %s", c.name, how)
		}
		r := w.restore()
		t.Logf("%s: %+v", c.name, r)
		w.serve()
		w.whole(rows)
		histories = append(histories, w.histories())
	}
	w.goesOn()
	w.watch.check(t, append(histories, w.histories())...)
}

// goesOn renews everything once more, and makes something new.
func (w *web) goesOn() {
	w.t.Helper()
	if _, err := w.mk("afterwards.web.example"); err != nil {
		w.t.Error(err)
	}
	w.renewAll()
}

// renewAll renews everything once more.
func (w *web) renewAll() {
	w.t.Helper()
	for _, c := range w.rows() {
		if _, err := w.renew(c.ID); err != nil {
			w.t.Error(err)
		}
	}
	w.allConverged()
}

// truncate cuts each of the files in which messages are to half its length.
func (w *web) truncate() {
	w.t.Helper()
	n := 0
	for _, f := range w.busFiles() {
		if filepath.Ext(f.path) != ".blk" {
			continue
		}
		if err := os.Truncate(f.path, f.size/2); err != nil {
			w.t.Fatal(err)
		}
		n++
	}
	if n == 0 {
		w.t.Fatal("no file has messages")
	}
}

// A busFile is one of the bus, and how long it is.
type busFile struct {
	path string
	size int64
}

func (w *web) busFiles() (files []busFile) {
	w.t.Helper()
	err := filepath.WalkDir(w.busDir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "aside" {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		files = append(files, busFile{path, fi.Size()})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

// TestBusLostWithItsLastMoments loses the bus and, by a SIGKILL, what no snapshot had
// yet: what replicas hold is made anew, above it, and what the bus knows nothing of
// is taken from what they report.
func TestBusLostWithItsLastMoments(t *testing.T) {
	t.Parallel()
	w, id := lostWithItsLastMoments(t)
	eventually(t, "what the last moments had made", func() error {
		f, err := w.fleetState()
		if err != nil {
			return err
		}
		for _, m := range f.Members {
			if slices.Contains(m.Unknown, id) {
				return nil
			}
		}
		return errors.New("status does not say that replicas hold it")
	})
	r := w.restore("--wait", fmt.Sprint(healing))
	if !slices.Equal(r.Adopted, []string{id}) || len(r.Unproven) > 0 {
		t.Errorf("%+v; want %s to be taken from replicas", r, id)
	}
	w.isWholeAgain(id)
}

// TestBusRestoredFromAHost is the same, but that what the bus knows nothing of is
// taken from a copy of the directory that a host joined with.
func TestBusRestoredFromAHost(t *testing.T) {
	t.Parallel()
	w, id := lostWithItsLastMoments(t)
	host := filepath.Join(t.TempDir(), "joined")
	copyDir(t, w.replicas[0].dir, host)
	r := w.restore("--from", host)
	if !slices.Contains(r.Adopted, id) || len(r.Unproven) > 0 {
		t.Errorf("%+v; want %s to be taken from the host", r, id)
	}
	w.isWholeAgain(id)
}

// isWholeAgain checks that everything is served and goes on, with a certificate that
// was taken from replicas.
func (w *web) isWholeAgain(id string) {
	t := w.t
	t.Helper()
	rows := w.rows()
	if !slices.ContainsFunc(rows, func(c row) bool { return c.ID == id }) || len(rows) != 5 {
		t.Errorf("%+v; want five, and %s among them", rows, id)
	}
	w.allConverged()
	w.renewAll()
	for _, c := range w.rows() {
		if c.Epoch < 2 {
			t.Errorf("%s is at %d.%d: below what was lost, perhaps", c.ID, c.Epoch, c.Generation)
		}
	}
	w.watch.end()
	if n := len(w.watch.failures); n > 0 {
		t.Errorf("%d of %d handshakes failed, the first of them:\n%s", n, w.watch.handshakes, w.watch.failures[0])
	}
}

// lostWithItsLastMoments has a manager go on without what it had made last: a
// generation of a certificate, and another certificate, whose id it returns.
func lostWithItsLastMoments(t *testing.T) (w *web, id string) {
	t.Helper()
	w = newWeb(t, 4, 2)
	w.manager.stop(t, sigterm)
	kept := filepath.Join(t.TempDir(), "snapshot")
	snapshot := filepath.Join(w.data, "snapshot")
	copyDir(t, snapshot, kept)
	w.serve()
	rows := w.rows()
	if _, err := w.renew(rows[0].ID); err != nil {
		t.Fatal(err)
	}
	const late = "late.web.example"
	id, err := w.mk(late)
	if err != nil {
		t.Fatal(err)
	}
	w.allConverged()
	w.watch.add(late)
	w.manager.kill(t)
	for _, dir := range []string{w.busDir(), snapshot} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	copyDir(t, kept, snapshot) // as it was before
	if r := w.restore(); r.Certificates != len(rows) {
		t.Errorf("%+v; want %d certificates", r, len(rows))
	}
	w.serve()
	return w, id
}
