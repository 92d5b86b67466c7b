// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/seal"
)

const (
	magic     = "KTLOG1\r\n" // the line end shows a file that was sent as text
	signature = "keyturn archive v1"
	sealSize  = 8 + sha256.Size + seal.SignatureSize
	// maxHead bounds the head's JSON, in bytes.
	maxHead = 4096
	// maxPosition bounds the text of a position, in bytes.
	maxPosition = 256
	// maxRecord bounds a record, in bytes.
	maxRecord = 1 + 2 + maxPosition + 1 + bus.MaxKey + bus.MaxData
)

// Kinds of records.
const (
	kindHead  = 'H'
	kindEntry = 'E'
	kindSeal  = 'S'
)

// A Head says what an archive is one of. Fields that a reader does not know are
// skipped.
type Head struct {
	Tenant string `json:"tenant"`
	// Log is the id of the log that it was begun from.
	Log string `json:"log"`
	// Epoch is that log's when the file was begun.
	Epoch uint64 `json:"epoch"`
	// Time is when it was begun, and Manager by whom, for people.
	Time    time.Time `json:"time"`
	Manager string    `json:"manager"`
}

// A Writer writes an archive. It is for one goroutine.
type Writer struct {
	w       io.Writer
	by      *seal.SigningKey
	sum     hash.Hash // since the last seal, that included
	entries uint64
	size    int64
	buffer  []byte
}

// NewWriter begins an archive that a manager's key seals. It writes each record
// in one piece.
func NewWriter(w io.Writer, by *seal.SigningKey, h Head) (*Writer, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if len(text) > maxHead {
		return nil, fmt.Errorf("archive: a head of %d bytes: at most %d are read back", len(text), maxHead)
	}
	out := &Writer{w: w, by: by, sum: sha256.New()}
	return out, out.put(appendRecord([]byte(magic), kindHead, text))
}

// appendRecord appends a record of one kind.
func appendRecord(to []byte, kind byte, body ...[]byte) []byte {
	n := 1
	for _, b := range body {
		n += len(b)
	}
	to = append(binary.BigEndian.AppendUint32(to, uint32(n)), kind)
	for _, b := range body {
		to = append(to, b...)
	}
	return to
}

func (w *Writer) put(record []byte) error {
	n, err := w.w.Write(record)
	w.size += int64(n)
	w.sum.Write(record)
	return err
}

// Add adds an entry. Until the next seal nothing vouches for it.
func (w *Writer) Add(e bus.Entry) error {
	if err := bus.CheckAppend(e.Key, e.Data); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	position := e.Position.String()
	if len(position) > maxPosition {
		return fmt.Errorf("archive: %s: a position of %d bytes: at most %d are read back", e.Key, len(position), maxPosition)
	}
	head := binary.BigEndian.AppendUint16(nil, uint16(len(position)))
	head = append(append(head, position...), byte(len(e.Key)))
	w.buffer = appendRecord(w.buffer[:0], kindEntry, head, []byte(e.Key), e.Data)
	if err := w.put(w.buffer); err != nil {
		return err
	}
	w.entries++
	return nil
}

// Seal vouches for everything so far. Without a seal at its end an archive is
// incomplete.
func (w *Writer) Seal() error {
	signed := w.sum.Sum(binary.BigEndian.AppendUint64(nil, w.entries))
	w.sum.Reset()
	return w.put(appendRecord(nil, kindSeal, signed, w.by.Sign(signature, signed)))
}

// Entries is how many there are.
func (w *Writer) Entries() uint64 { return w.entries }

// Size is how long the archive is, in bytes.
func (w *Writer) Size() int64 { return w.size }
