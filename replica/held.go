// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyturn/keyturn/seal"
)

// SnapshotKey returns the id of the group's key that the newest file of a snapshot
// directory was written with. The error is fs.ErrNotExist where there is none.
func SnapshotKey(dir string) (seal.KeyID, error) {
	files, err := journalFiles(dir)
	if err != nil {
		return seal.KeyID{}, err
	}
	if len(files) == 0 {
		return seal.KeyID{}, fmt.Errorf("replica: no snapshot in %s: %w", dir, os.ErrNotExist)
	}
	return journalKey(filepath.Join(dir, fileName(files[len(files)-1])))
}

// Held returns the newest event of every managed certificate, as a manager signed
// it, from the snapshot of a replica that does not run, with one of its group's keys:
// what a bus that has lost it can be given. What is damaged is left out, and logged.
func Held(dir, tenant, group string, keys []*seal.PrivateKey, logger *slog.Logger) ([][]byte, error) {
	if _, err := SnapshotKey(dir); err != nil {
		return nil, err
	}
	s, entries, _, _, err := openSnapshot(&Replica{tenant: tenant, group: group, keys: keys, logger: logger}, dir)
	if err != nil {
		return nil, err
	}
	events := make([][]byte, 0, len(entries))
	for _, one := range entries {
		data, err := one.held.text.Load().read()
		if err != nil {
			_ = s.close() // the first error is the one to report
			return nil, fmt.Errorf("replica: %w", err)
		}
		events = append(events, data)
	}
	slices.SortFunc(events, slices.Compare)
	return events, s.close()
}
