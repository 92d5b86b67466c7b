// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"crypto/cipher"
	"fmt"
	"io"
)

// A segment is a journal file that is read from. It stays open for as long as anything
// refers to it: the store opens certificates after Close, too, and after the file was
// removed.
type segment struct {
	file io.ReaderAt
	aead cipher.AEAD
}

// A text is where the bytes of an event are: in memory, or in a record of a journal
// file, so that very many take little memory.
type text struct {
	data []byte // nil if it is in the file

	segment *segment
	number  uint64 // of the record
	offset  int64  // where that starts, and how many bytes it has
	size    int
}

// read returns the event, which is authenticated.
func (t *text) read() ([]byte, error) {
	if t.data != nil {
		return t.data, nil
	}
	b := make([]byte, t.size)
	if _, err := t.segment.file.ReadAt(b, t.offset); err != nil {
		return nil, fmt.Errorf("reading an event of the snapshot: %w", err)
	}
	r, err := decodeRecord(t.segment.aead, t.number, b)
	if err != nil {
		return nil, fmt.Errorf("reading an event of the snapshot: %w", err)
	}
	return r.event, nil
}
