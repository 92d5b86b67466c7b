// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable/powercut"
	"github.com/keyturn/keyturn/manager"
)

// imageSize is that of the file system that the bus is on, in bytes.
const imageSize = 64 << 20

// writers is how many append at once.
const writers = 4

// cuts is how often the power is cut.
func cuts() int {
	if os.Getenv("KEYTURN_SOAK") != "" {
		return 500
	}
	return 50
}

// runBus runs the embedded bus on a directory until its input ends. The credentials,
// and where it is, go to a directory elsewhere.
func runBus(ctx context.Context, dir, elsewhere string) error {
	s, err := embedded.Start(embedded.Config{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Shutdown()
	d := datadir.At(elsewhere)
	id, err := s.Create(ctx, manager.DefaultTenant, "")
	if err != nil {
		return err
	}
	err = errors.Join(d.SetLogID(id), d.SetURL(s.URL()),
		d.Creds(bus.ManagerCreds, func() ([]byte, error) { return s.ManagerCreds(manager.DefaultTenant) }))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// An entry is what was acknowledged last under a key.
type entry struct {
	data []byte
	at   bus.Position
}

// A load appends all the time.
type load struct {
	log bus.Log

	mu      sync.Mutex
	entries map[string]entry // guarded by mu
	acked   int              // guarded by mu
}

func (l *load) run(ctx context.Context, writer int) error {
	random := rand.New(rand.NewPCG(uint64(writer), 3))
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("state/w%d-%d", writer, i%25)
		data := make([]byte, 1+random.IntN(8<<10))
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		l.mu.Lock()
		after := l.entries[key].at
		l.mu.Unlock()
		at, err := l.log.Append(ctx, key, after, data)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		l.mu.Lock()
		l.entries[key] = entry{data, at}
		l.acked++
		l.mu.Unlock()
	}
	return nil
}

// acknowledged returns what must not be lost from now on.
func (l *load) acknowledged() map[string]entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.entries)
}

// TestImageCut runs the embedded bus on a file system of its own, in a file, and takes
// copies of that file at random moments while there are appends: that is what a disk
// has when the power is cut. On each copy the bus starts, and has whatever it had
// acknowledged.
func TestImageCut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("mounting takes root: nothing is cut")
		return
	}
	dir := powercut.Dir(t)
	image, place, elsewhere := filepath.Join(dir, "image"), filepath.Join(dir, "place"), filepath.Join(dir, "elsewhere")
	must(t, os.Mkdir(place, 0o700), os.Mkdir(elsewhere, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, imageSize))
	command(t, "mkfs.ext4", "-q", "-F", image)
	mount(t, image, place)
	server := startBus(t, filepath.Join(place, "bus"), elsewhere)

	conn, err := bus.OpenDir(elsewhere, bus.Options{Creds: bus.ManagerCreds, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(conn.Close)
	must(t, conn.Connected(t.Context()))
	l := &load{log: conn, entries: make(map[string]entry)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for i := range writers {
		running.Go(func() {
			if err := l.run(ctx, i); err != nil {
				t.Error(err)
			}
		})
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range cuts() {
		time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond)))) // the random moment
		must := l.acknowledged()
		copied := server.copyStopped(t, image)
		if err := afterCut(t, copied, elsewhere, must); err != nil {
			t.Errorf("cut %d: %v", i+1, err)
		}
		if t.Failed() {
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d cuts in %d acknowledged appends", cuts(), l.acked)
}

// A busProcess is the bus in a process of its own.
type busProcess struct{ *os.Process }

func startBus(t *testing.T, dir, elsewhere string) *busProcess {
	t.Helper()
	program, err := os.Executable()
	must(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), busVariable+"="+dir, dirVariable+"="+elsewhere)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the bus: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the bus says %q, %v", line, err)
	}
	return &busProcess{cmd.Process}
}

// copyStopped copies the image while the bus stands still, as it is on the disk: what
// only the system's memory has is not in it. Two copies are taken until they are the
// same, so that none has one half of what the system was just writing.
func (p *busProcess) copyStopped(t *testing.T, image string) []byte {
	t.Helper()
	must(t, p.Signal(syscall.SIGSTOP))
	defer func() { must(t, p.Signal(syscall.SIGCONT)) }()
	before, err := os.ReadFile(image)
	must(t, err)
	for {
		now, err := os.ReadFile(image)
		must(t, err)
		if bytes.Equal(before, now) {
			return now
		}
		before = now
	}
}

// afterCut starts the bus on what is left, and looks whether it has everything.
func afterCut(t *testing.T, image []byte, elsewhere string, want map[string]entry) error {
	t.Helper()
	dir := powercut.Dir(t)
	defer os.RemoveAll(dir)
	file, place := filepath.Join(dir, "image"), filepath.Join(dir, "place")
	must(t, os.WriteFile(file, image, 0o600), os.Mkdir(place, 0o700))
	unmount := mount(t, file, place)
	defer unmount()
	s, err := embedded.Start(embedded.Config{Dir: filepath.Join(place, "bus"), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Shutdown()
	known, err := datadir.At(elsewhere).LogID()
	if err != nil {
		return err
	}
	id, err := s.Create(t.Context(), manager.DefaultTenant, known)
	if err != nil || id != known {
		return fmt.Errorf("the log is %q, and was %q: %w", id, known, err)
	}
	d := datadir.At(dir)
	creds, err := os.ReadFile(filepath.Join(elsewhere, bus.ManagerCreds))
	if err != nil {
		return err
	}
	if err := errors.Join(d.SetURL(s.URL()), d.Creds(bus.ManagerCreds, func() ([]byte, error) { return creds, nil })); err != nil {
		return err
	}
	conn, err := bus.OpenDir(dir, bus.Options{Creds: bus.ManagerCreds, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Connected(t.Context()); err != nil {
		return err
	}
	var errs []error
	for key, e := range want {
		found, err := conn.Get(t.Context(), key)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s, acknowledged at %s: %w", key, e.at, err))
		case found.Position.Seq < e.at.Seq, found.Position == e.at && !bytes.Equal(found.Data, e.data):
			errs = append(errs, fmt.Errorf("%s, acknowledged at %s, is an older one, at %s", key, e.at, found.Position))
		}
	}
	return errors.Join(errs...)
}

// mount mounts an image until the test ends, or unmount is called.
func mount(t *testing.T, image, place string) (unmount func()) {
	t.Helper()
	command(t, "mount", "-o", "loop", image, place)
	unmount = sync.OnceFunc(func() { command(t, "umount", place) })
	t.Cleanup(unmount)
	return unmount
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
