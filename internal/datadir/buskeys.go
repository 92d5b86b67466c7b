// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// busKeys is the file, in the snapshot's directory, of the embedded bus's keys,
// sealed to the managers. That it is there says that the bus was an embedded one.
const busKeys = "bus.keys"

// busKeysContext is what they are bound to when they are sealed.
const busKeysContext = "keyturn bus keys v1"

// maxBusKeys bounds it, in bytes.
const maxBusKeys = 64 << 20

// KeepBusKeys keeps the files of the embedded bus's keys, by path, so that they are
// not lost with it.
func (d *Dir) KeepBusKeys(files map[string][]byte) error {
	id, err := d.Identity()
	if err != nil {
		return err
	}
	text, err := json.Marshal(files)
	if err != nil {
		return err
	}
	defer clear(text)
	sealed, err := id.Sealing[0].Public().Seal([]byte(busKeysContext), text)
	if err != nil {
		return fmt.Errorf("sealing the keys of the bus: %w", err)
	}
	if err := durable.MkdirAll(d.File(Snapshot)); err != nil {
		return err
	}
	return durable.WriteFile(d.busKeys(), sealed, durable.PrivateFile)
}

func (d *Dir) busKeys() string { return filepath.Join(d.File(Snapshot), busKeys) }

// HasBusKeys reports whether the bus was an embedded one when keys were kept last.
func (d *Dir) HasBusKeys() bool {
	_, err := os.Stat(d.busKeys())
	return err == nil
}

// BusKeys returns what was kept; nil if nothing was.
func (d *Dir) BusKeys() (map[string][]byte, error) {
	sealed, err := durable.ReadPrivate(d.busKeys(), maxBusKeys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the keys of the bus: %w", err)
	}
	id, err := d.Identity()
	if err != nil {
		return nil, err
	}
	text, err := seal.Open(id.Sealing, []byte(busKeysContext), sealed)
	if err != nil {
		return nil, fmt.Errorf("opening the keys of the bus in %s: %w", d.busKeys(), err)
	}
	defer clear(text)
	var files map[string][]byte
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, fmt.Errorf("the keys of the bus in %s: %w", d.busKeys(), err)
	}
	return files, nil
}

// DropBusKeys says that the bus is elsewhere.
func (d *Dir) DropBusKeys() error {
	if err := durable.Remove(d.busKeys()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
