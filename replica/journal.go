// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// The journal file:
//
//	magic (8), id of the group's key (8), salt (32), then records
//
// The file's AES-256 key is derived from the group's private key and the salt,
// so that only who holds that key can read the file or write one that is
// believed. (A key sealed to the group's public key would let anybody who knows
// that write one.)
//
// A record, integers big-endian:
//
//	length of the rest (4), nonce (12), kind (1), length of the position (2),
//	the position's text, length of the event (4), the event, tag (16)
//
// The tag is that of AES-256-GCM. It authenticates, as associated data, the record's
// number in the file and everything from the kind to the event. So a record cannot be
// changed, moved, repeated or left out without the file ending there. Nothing is
// encrypted by it: the secret in an event is sealed to the group.
const (
	magic     = "KTSNAP2\n"
	saltSize  = 32
	headSize  = len(magic) + len(seal.KeyID{}) + saltSize
	nonceSize = 12
	tagSize   = 16
	// maxRecord bounds a record, in bytes: an event, and the rest.
	maxRecord = event.MaxSize + 1<<10
	// keepFiles is how many files are kept, the newest included.
	keepFiles = 3
)

type recordKind byte

const (
	// recordEntry is an event that was applied, and is proven: see proof.go.
	recordEntry recordKind = iota + 1
	// recordMark only moves the position.
	recordMark
	// recordBase ends what a new file starts with: everything that was held.
	// Without it a file is incomplete and moves no position.
	recordBase
	// recordSealed is an event that was applied, and is not proven.
	recordSealed
	// recordProven says that everything in the file before it is proven.
	recordProven
)

type record struct {
	kind     recordKind
	position bus.Position
	event    []byte
}

// The number of a record is not written. Where its tag is made or checked, it stands
// for a moment in the last of the recordHead bytes before what the tag authenticates,
// which are those of the length and the nonce: so nothing has to be copied.
const (
	recordHead = 4 + nonceSize
	numberAt   = recordHead - 8
)

// encodeRecord encodes and authenticates; the result includes the length.
func encodeRecord(aead cipher.AEAD, number uint64, kind recordKind, at bus.Position, ev []byte) ([]byte, error) {
	if err := checkPosition(at); err != nil {
		return nil, err
	}
	position := at.String()
	n := nonceSize + 1 + 2 + len(position) + 4 + len(ev) + tagSize
	if n > maxRecord {
		return nil, fmt.Errorf("a record of %d bytes is larger than the %d that are read back", n, maxRecord)
	}
	out := make([]byte, recordHead, 4+n)
	binary.BigEndian.PutUint64(out[numberAt:], number)
	out = append(out, byte(kind))
	out = binary.BigEndian.AppendUint16(out, uint16(len(position)))
	out = append(out, position...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(ev)))
	out = append(out, ev...)

	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails: see crypto/rand
	out = aead.Seal(out, nonce[:], nil, out[numberAt:])
	binary.BigEndian.PutUint32(out, uint32(n))
	copy(out[4:], nonce[:])
	return out, nil
}

// maxPosition is the longest text of a position, in bytes. It comes from the
// bus, which is not to be believed: one whose length overflowed its field would
// move the borders of what the tag authenticates.
const maxPosition = 256

// checkPosition refuses what could not be written down and read back.
func checkPosition(p bus.Position) error {
	text := p.String()
	if back, err := bus.ParsePosition(text); len(text) > maxPosition || err != nil || back != p {
		return fmt.Errorf("the bus gives a malformed position of %d bytes", len(text))
	}
	return nil
}

var errRecord = errors.New("a record is damaged")

// recordSize returns how long the first record of b is, 0 where b has none that is
// whole.
func recordSize(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxRecord || uint64(n) > uint64(len(b)-4) || n < nonceSize+1+2+4+tagSize {
		return 0
	}
	return 4 + int(n)
}

// decodeRecord decodes and authenticates b, a whole record, and writes over its length
// and its nonce. The event aliases b.
func decodeRecord(aead cipher.AEAD, number uint64, b []byte) (r record, err error) {
	var nonce [nonceSize]byte
	copy(nonce[:], b[4:])
	binary.BigEndian.PutUint64(b[numberAt:], number)
	end := len(b) - tagSize
	if _, err := aead.Open(nil, nonce[:], b[end:], b[numberAt:end]); err != nil {
		return r, errRecord
	}
	body := b[recordHead:end]
	p := int(binary.BigEndian.Uint16(body[1:]))
	if 3+p+4 > len(body) || uint64(len(body)-3-p-4) != uint64(binary.BigEndian.Uint32(body[3+p:])) {
		return r, errRecord
	}
	position, err := bus.ParsePosition(string(body[3 : 3+p]))
	if err != nil {
		return r, errRecord
	}
	return record{recordKind(body[0]), position, body[3+p+4:]}, nil
}

// A journal is the file that is written to.
type journal struct {
	file    *durable.File
	segment *segment
	number  uint64 // of the next record
	size    int64
	live    int64 // the size of those that have what is held
}

// holds notes that an event is held, and drops that one is not held any more; either
// may be elsewhere.
func (j *journal) holds(h *held) {
	if j != nil && h.text.Load().segment == j.segment {
		j.live += int64(h.text.Load().size)
	}
}

func (j *journal) drops(h *held) {
	if h != nil && h.text.Load().segment == j.segment {
		j.live -= int64(h.text.Load().size)
	}
}

// append writes a record, and returns where its event is from now on. It is on the disk
// after the next sync.
func (j *journal) append(kind recordKind, at bus.Position, ev []byte) (*text, error) {
	b, err := encodeRecord(j.segment.aead, j.number, kind, at, ev)
	if err != nil {
		return nil, err
	}
	if _, err := j.file.Write(b); err != nil {
		return nil, err
	}
	t := &text{segment: j.segment, number: j.number, offset: j.size, size: len(b)}
	j.number++
	j.size += int64(len(b))
	return t, nil
}

func (j *journal) sync() error { return j.file.Sync() }

func (j *journal) close() error { return j.file.Close() }

// fileKey derives the key of a file from its head.
func fileKey(k *seal.PrivateKey, tenant, group string, salt []byte) (cipher.AEAD, error) {
	key, err := k.Derive("replica snapshot\x00"+tenant+"\x00"+group, salt)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// journalKey returns the id of the group's key that a file was written with.
func journalKey(path string) (id seal.KeyID, err error) {
	f, err := os.Open(path)
	if err != nil {
		return id, err
	}
	defer f.Close()
	head := make([]byte, headSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return id, err
	}
	copy(id[:], head[len(magic):])
	return id, nil
}

// journalFiles returns the numbers of the files in dir, the oldest first.
func journalFiles(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		var n uint64
		if _, err := fmt.Sscanf(e.Name(), "snapshot-%016x.ktj", &n); err == nil && e.Name() == fileName(n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func fileName(n uint64) string { return fmt.Sprintf("snapshot-%016x.ktj", n) }

// newJournal writes a file that starts with what write appends, makes it
// durable under number n, and leaves it open for more.
func newJournal(dir string, n uint64, k *seal.PrivateKey, tenant, group string, at bus.Position, write func(*journal) error) (_ *journal, err error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: see crypto/rand
	aead, err := fileKey(k, tenant, group, salt)
	if err != nil {
		return nil, err
	}
	id := k.Public().ID()
	head := slices.Concat([]byte(magic), id[:], salt)

	path := filepath.Join(dir, fileName(n))
	tmp := path + ".tmp"
	f, err := durable.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, durable.PrivateFile)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to report
			_ = durable.Remove(tmp)
		}
	}()
	if _, err := f.Write(head); err != nil {
		return nil, err
	}
	read, err := os.Open(tmp) // what is written is read by this, under whatever name
	if err != nil {
		return nil, err
	}
	j := &journal{file: f, segment: &segment{read, aead}, size: int64(len(head))}
	if err := write(j); err != nil {
		return nil, err
	}
	if _, err := j.append(recordBase, at, nil); err != nil {
		return nil, err
	}
	j.live = j.size
	if err := j.sync(); err != nil {
		return nil, err
	}
	if err := durable.Rename(tmp, path); err != nil {
		return nil, err
	}
	return j, durable.SyncDir(dir)
}
