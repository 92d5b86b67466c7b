// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
)

// fill makes a log with some entries, and stops the server.
func fill(t *testing.T) (e *engine, id string) {
	t.Helper()
	e = start(t, t.TempDir())
	id, err := e.server.Create(t.Context(), "default", "")
	if err != nil {
		t.Fatal(err)
	}
	log, err := bus.OpenDir(e.dir, bus.Options{Creds: bus.ManagerCreds, Tenant: "default", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for i := range 10 {
		if _, err := log.Append(t.Context(), fmt.Sprintf("state/%d", i), bus.Position{}, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	e.server.Shutdown()
	return e, id
}

// TestKeysArePutBack: with them, a server whose directory was lost lets those in who
// could log in before, and trusts its CA.
func TestKeysArePutBack(t *testing.T) {
	e, _ := fill(t)
	keys, err := embedded.KeyFiles(e.config.Dir)
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d files, %v; want four keys", len(keys), err)
	}
	if err := os.RemoveAll(e.config.Dir); err != nil {
		t.Fatal(err)
	}
	if err := embedded.PutKeyFiles(e.config.Dir, keys); err != nil {
		t.Fatal(err)
	}
	e.start(t)
	if _, err := e.server.Create(t.Context(), "default", ""); err != nil {
		t.Fatal(err)
	}
	log, err := bus.OpenDir(e.dir, bus.Options{Creds: bus.ManagerCreds, Tenant: "default", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Connected(t.Context()); err != nil {
		t.Errorf("with the credentials from before: %v", err)
	}
	if err := embedded.PutKeyFiles(e.config.Dir, map[string][]byte{"../out": nil}); err == nil {
		t.Error("a file was put outside")
	}
}

// TestFilesSetAside leave room for a new log, and are kept.
func TestFilesSetAside(t *testing.T) {
	e, id := fill(t)
	to, err := embedded.SetAside(e.config.Dir, "default")
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"KEYTURN_default", "KEYTURN_default_BOARD"} {
		if _, err := os.Stat(filepath.Join(to, stream, "msgs")); err != nil {
			t.Error(err)
		}
	}
	if again, err := embedded.SetAside(e.config.Dir, "default"); err != nil || again != "" {
		t.Errorf("%q, %v: nothing is left to set aside", again, err)
	}
	e.start(t)
	if _, err := e.server.Create(t.Context(), "default", id); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("the log is gone: %v", err)
	}
	if other, err := e.server.Create(t.Context(), "default", ""); err != nil || other == id {
		t.Errorf("%s, %v: want another log than %s", other, err, id)
	}
	e.server.Shutdown()
	if to, err := embedded.SetAllAside(e.config.Dir); err != nil || to == "" {
		t.Errorf("%q, %v", to, err)
	}
}

// firstBlock returns the file of messages of a log that fill made, and what is in it.
func firstBlock(t *testing.T, e *engine) (path string, data []byte) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(e.config.Dir, "jetstream/jetstream/*/streams/KEYTURN_default/msgs/*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatal(blocks, err)
	}
	data, err = os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	return blocks[0], data
}

// startsOn puts data in the place of a file and reports whether the server starts; if
// not it has to say that its files are damaged.
func (e *engine) startsOn(t *testing.T, path string, data []byte) bool {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := embedded.Start(e.config)
	if err != nil && !errors.Is(err, embedded.ErrDamaged) {
		t.Fatal(err)
	}
	if err == nil {
		s.Shutdown()
	}
	return err == nil
}

// recordLength is how long the record is that data begins with.
func recordLength(data []byte) int { return int(binary.LittleEndian.Uint32(data) &^ (1 << 31)) }

// TestImpossibleSequences: the server would take memory for everything between two
// messages.
func TestImpossibleSequences(t *testing.T) {
	e, _ := fill(t)
	path, good := firstBlock(t, e)
	second := recordLength(good)
	for _, salvage := range []bool{false, true} {
		e.config.Salvage = salvage
		for _, bit := range []int{30, 40, 61} {
			bad := slices.Clone(good)
			bad[second+4+bit/8] ^= 1 << (bit % 8)
			if e.startsOn(t, path, bad) {
				t.Errorf("bit %d of a sequence is flipped, and the server starts", bit)
			}
		}
	}
	if !e.startsOn(t, path, good) {
		t.Error("the server does not start with what was there")
	}
}

// TestFlippedBits: a message with a flipped bit, of which NATS would tell when it reads
// it next, is found at the start, wherever the bit is. What is left can be read
// nevertheless.
func TestFlippedBits(t *testing.T) {
	e, _ := fill(t)
	path, good := firstBlock(t, e)
	second := recordLength(good)
	third := second + recordLength(good[second:])
	headerLength := second + 22 + int(binary.LittleEndian.Uint16(good[second+20:])) // no checksum has it
	for at := second; at < third; at++ {
		if good[second+3]>>7 == 1 && at >= headerLength && at < headerLength+4 {
			continue
		}
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if e.startsOn(t, path, bad) {
			t.Errorf("bit %d of byte %d of a message is flipped, and the server starts", at%8, at-second)
		}
	}
	e.config.Salvage = true
	bad := slices.Clone(good)
	bad[third-20] ^= 1
	if !e.startsOn(t, path, bad) {
		t.Error("what is left cannot be read")
	}
}

// TestTornMessage: what a power cut has left of the last message is no damage.
func TestTornMessage(t *testing.T) {
	e, _ := fill(t)
	path, good := firstBlock(t, e)
	last := 0
	for next := 0; next < len(good); next += recordLength(good[next:]) {
		last = next
	}
	for _, left := range []int{0, 3, 22, 60, len(good) - last - 1} {
		torn := good[:last+left]
		if !e.startsOn(t, path, torn) {
			t.Errorf("%d bytes are left of the last message, and the server does not start", left)
		}
		zeros := append(slices.Clone(torn), make([]byte, len(good)-len(torn))...)
		if !e.startsOn(t, path, zeros) {
			t.Errorf("%d bytes are left of the last message, and zeros after them, and the server does not start", left)
		}
	}
}
