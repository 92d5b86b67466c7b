// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/seal"
)

// Errors of a Reader.
var (
	// ErrNotArchive means that the bytes are not an archive of this version.
	ErrNotArchive = errors.New("archive: not an archive of a log")
	// ErrDamaged means that the bytes are not those that were sealed.
	ErrDamaged = errors.New("archive: damaged")
	// ErrCut means that the archive has no end: it was cut, or is being written.
	ErrCut = errors.New("archive: cut: its end is missing")
)

// A Reader reads an archive. It is for one goroutine.
type Reader struct {
	r       *bufio.Reader
	head    Head
	sum     hash.Hash // since the last seal, that included
	entries uint64
	offset  int64  // of the next record
	at      int64  // of the entry that Next returned last
	record  []byte // the one that was read last
	last    Sealed
}

// Sealed is what the last good seal says.
type Sealed struct {
	// Offset is where it ends, in bytes, and Entries how many stand before it.
	Offset  int64
	Entries uint64

	signed, signature []byte
	record            []byte
}

// NewReader reads the head. The error may be ErrNotArchive.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	var start [len(magic)]byte
	if _, err := io.ReadFull(in.r, start[:]); err != nil || string(start[:]) != magic {
		return nil, fmt.Errorf("%w, or one of another version", orFailed(err, ErrNotArchive))
	}
	in.sum.Write(start[:])
	in.offset = int64(len(start))
	kind, body, err := in.next()
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case err != nil || kind != kindHead || len(body) > maxHead:
		return nil, fmt.Errorf("%w: it has no head", ErrNotArchive)
	}
	if err := json.Unmarshal(body, &in.head); err != nil {
		return nil, fmt.Errorf("%w: its head: %w", ErrNotArchive, err)
	}
	in.sum.Write(in.record)
	return in, nil
}

// orFailed is what a short read means, unless reading itself has failed.
func orFailed(err, short error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return short
	}
	return fmt.Errorf("archive: reading: %w", err)
}

// next reads a record. The error is io.EOF where none begins.
func (r *Reader) next() (kind byte, body []byte, err error) {
	var length [4]byte
	if _, err := io.ReadFull(r.r, length[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, orFailed(err, ErrCut)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxRecord {
		return 0, nil, fmt.Errorf("%w at byte %d: a record of %d bytes", ErrDamaged, r.offset, n)
	}
	r.record = append(r.record[:0], length[:]...)
	r.record = append(r.record, make([]byte, n)...)
	if _, err := io.ReadFull(r.r, r.record[len(length):]); err != nil {
		return 0, nil, orFailed(err, ErrCut)
	}
	r.offset += int64(len(r.record))
	return r.record[4], r.record[5:], nil
}

// Head returns what the archive is one of.
func (r *Reader) Head() Head { return r.head }

// Next returns the next entry, whose data are good until the next call. The
// error is io.EOF after the last one, if it is sealed, else ErrCut or ErrDamaged.
// What it returns is what the archive says: nothing vouches for it before Sealed
// and Check do, and only its own signature after that.
func (r *Reader) Next() (bus.Entry, error) {
	for {
		at := r.offset
		kind, body, err := r.next()
		if errors.Is(err, io.EOF) {
			if r.last.Offset != at {
				return bus.Entry{}, ErrCut
			}
			return bus.Entry{}, io.EOF
		}
		if err != nil {
			return bus.Entry{}, err
		}
		switch kind {
		case kindEntry:
			e, err := decodeEntry(body)
			if err != nil {
				return bus.Entry{}, fmt.Errorf("%w at byte %d: %w", ErrDamaged, at, err)
			}
			r.sum.Write(r.record)
			r.entries++
			r.at = at
			return e, nil
		case kindSeal:
			if err := r.seal(body); err != nil {
				return bus.Entry{}, fmt.Errorf("%w before byte %d: %w", ErrDamaged, at, err)
			}
		default:
			return bus.Entry{}, fmt.Errorf("%w at byte %d: a record of kind %q", ErrDamaged, at, kind)
		}
	}
}

// At returns where the entry begins that Next returned last, in bytes.
func (r *Reader) At() int64 { return r.at }

func decodeEntry(b []byte) (e bus.Entry, err error) {
	position, b, ok := field(b, 2)
	key, data, more := field(b, 1)
	if !ok || !more {
		return e, errors.New("an entry that is too short")
	}
	e = bus.Entry{Key: string(key), Data: data}
	if e.Position, err = bus.ParsePosition(string(position)); err != nil {
		return e, err
	}
	return e, bus.CheckAppend(e.Key, e.Data)
}

// field cuts off what follows its own length, a number of so many bytes.
func field(b []byte, width int) (value, rest []byte, ok bool) {
	if len(b) < width {
		return nil, nil, false
	}
	n := 0
	for _, digit := range b[:width] {
		n = n<<8 | int(digit)
	}
	if b = b[width:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// seal takes a seal if it is that of what was read.
func (r *Reader) seal(body []byte) error {
	want := r.sum.Sum(binary.BigEndian.AppendUint64(nil, r.entries))
	if len(body) != sealSize || !bytes.Equal(body[:len(want)], want) {
		return errors.New("what stands there is not what was sealed")
	}
	r.last = Sealed{r.offset, r.entries, want, bytes.Clone(body[len(want):]), bytes.Clone(r.record)}
	r.sum.Reset()
	r.sum.Write(r.record)
	return nil
}

// Sealed returns what the last good seal says; zero before the first.
func (r *Reader) Sealed() Sealed { return r.last }

// Check returns which of the trusted managers made the seal, and so vouches for
// everything before it. The error is seal.ErrUnknownSigner, seal.ErrSignature, or
// ErrCut where there is no seal.
func (s Sealed) Check(trusted []*seal.VerifyKey) (seal.KeyID, error) {
	if s.signed == nil {
		return seal.KeyID{}, ErrCut
	}
	return seal.Verify(trusted, signature, s.signed, s.signature)
}

// Resume returns a Writer that goes on after a seal, where w has to be.
func (s Sealed) Resume(w io.Writer, by *seal.SigningKey) *Writer {
	out := &Writer{w: w, by: by, sum: sha256.New(), entries: s.Entries, size: s.Offset}
	out.sum.Write(s.record)
	return out
}
