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
//	the position's text, length of the event (4), the event, and the private
//	key (PKCS #8, perhaps empty) under AES-256-GCM with its tag (16)
//
// The tag authenticates, as associated data, the record's number in the file
// and everything before the private key. So a record cannot be changed, moved,
// repeated or left out without the file ending there.
const (
	magic     = "KTSNAP1\n"
	saltSize  = 32
	headSize  = len(magic) + len(seal.KeyID{}) + saltSize
	nonceSize = 12
	tagSize   = 16
	// maxRecord bounds a record, in bytes: an event, a key, and the rest.
	maxRecord = event.MaxSize + 64<<10
	// maxJournal bounds a file that is read, in bytes.
	maxJournal = 4 << 30
	// keepFiles is how many files are kept, the newest included.
	keepFiles = 3
)

type recordKind byte

const (
	// recordEntry is an event that was applied, and its key.
	recordEntry recordKind = iota + 1
	// recordMark only moves the position.
	recordMark
	// recordBase ends what a new file starts with: everything that was held.
	// Without it a file is incomplete and moves no position.
	recordBase
)

type record struct {
	kind     recordKind
	position bus.Position
	event    []byte
	key      lockedKey
}

// A lockedKey is a private key as it stands in a file, and how to unlock it.
type lockedKey struct {
	aead       cipher.AEAD
	nonce      []byte
	associated []byte
	ciphertext []byte
}

// unlock returns PKCS #8 DER.
func (k lockedKey) unlock() ([]byte, error) {
	return k.aead.Open(nil, k.nonce, k.ciphertext, k.associated)
}

// encodeRecord encodes and encrypts; the result includes the length.
func encodeRecord(aead cipher.AEAD, number uint64, kind recordKind, at bus.Position, ev, key []byte) ([]byte, lockedKey, error) {
	position := at.String()
	if err := checkPosition(at); err != nil {
		return nil, lockedKey{}, err
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails: see crypto/rand
	clear := []byte{byte(kind)}
	clear = binary.BigEndian.AppendUint16(clear, uint16(len(position)))
	clear = append(clear, position...)
	clear = binary.BigEndian.AppendUint32(clear, uint32(len(ev)))
	clear = append(clear, ev...)
	associated := numbered(number, clear)
	ciphertext := aead.Seal(nil, nonce, key, associated)

	n := len(nonce) + len(clear) + len(ciphertext)
	if n > maxRecord {
		return nil, lockedKey{}, fmt.Errorf("a record of %d bytes is larger than the %d that are read back", n, maxRecord)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+n), uint32(n))
	out = append(out, nonce...)
	out = append(out, clear...)
	out = append(out, ciphertext...)
	return out, lockedKey{aead, nonce, associated, ciphertext}, nil
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

func numbered(number uint64, clear []byte) []byte {
	out := make([]byte, 0, 8+len(clear))
	return append(binary.BigEndian.AppendUint64(out, number), clear...)
}

var errRecord = errors.New("a record is damaged")

// decodeRecord decodes and authenticates the first record of b and returns the
// rest. What it returns does not alias b.
func decodeRecord(aead cipher.AEAD, number uint64, b []byte) (r record, rest []byte, err error) {
	if len(b) < 4 {
		return r, nil, errRecord
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if n > maxRecord || uint64(n) > uint64(len(b)) || n < nonceSize+1+2+4+tagSize {
		return r, nil, errRecord
	}
	body, rest := b[:n], b[n:]
	nonce, body := body[:nonceSize], body[nonceSize:]
	p := int(binary.BigEndian.Uint16(body[1:]))
	if 3+p+4 > len(body)-tagSize {
		return r, nil, errRecord
	}
	e := binary.BigEndian.Uint32(body[3+p:])
	end := uint64(3+p+4) + uint64(e)
	if end > uint64(len(body)-tagSize) {
		return r, nil, errRecord
	}
	associated := numbered(number, body[:end])
	key := lockedKey{aead, slices.Clone(nonce), associated, slices.Clone(body[end:])}
	if _, err := key.unlock(); err != nil {
		return r, nil, errRecord
	}
	position, err := bus.ParsePosition(string(body[3 : 3+p]))
	if err != nil {
		return r, nil, errRecord
	}
	clear := associated[8:]
	return record{recordKind(body[0]), position, clear[3+p+4:], key}, rest, nil
}

// A journal is the file that is written to.
type journal struct {
	file   *os.File
	aead   cipher.AEAD
	number uint64 // of the next record
	size   int64
	base   int64 // the size after the base record
}

// append writes a record. It is on the disk after the next sync.
func (j *journal) append(kind recordKind, at bus.Position, ev, key []byte) (lockedKey, error) {
	b, locked, err := encodeRecord(j.aead, j.number, kind, at, ev, key)
	if err != nil {
		return lockedKey{}, err
	}
	if _, err := j.file.Write(b); err != nil {
		return lockedKey{}, err
	}
	j.number++
	j.size += int64(len(b))
	return locked, nil
}

func (j *journal) sync() error { return j.file.Sync() }

func (j *journal) close() error { return j.file.Close() }

// contents is what was read from one file.
type contents struct {
	aead     cipher.AEAD
	records  []record
	complete bool // the base record was there
	clean    bool // it was good to the end
	size     int64
	base     int64
}

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

// decodeJournal reads as many records as are good.
func decodeJournal(keys []*seal.PrivateKey, tenant, group string, b []byte) (*contents, error) {
	if len(b) < headSize || string(b[:len(magic)]) != magic {
		return nil, errors.New("it is not a snapshot, or was cut at its start")
	}
	id := seal.KeyID(b[len(magic):])
	i := slices.IndexFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().ID() == id })
	if i < 0 {
		return nil, fmt.Errorf("it was written with the group's key %s, which is not here", id)
	}
	aead, err := fileKey(keys[i], tenant, group, b[headSize-saltSize:headSize])
	if err != nil {
		return nil, err
	}
	c := &contents{aead: aead, clean: true}
	for rest := b[headSize:]; len(rest) > 0; {
		r, after, err := decodeRecord(aead, uint64(len(c.records)), rest)
		if err != nil {
			c.clean = false
			break
		}
		c.records = append(c.records, r)
		rest = after
		c.size = int64(len(b) - len(rest))
		if r.kind == recordBase {
			c.complete, c.base = true, c.size
		}
	}
	return c, nil
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
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, durable.PrivateFile)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to report
			_ = os.Remove(tmp)
		}
	}()
	if _, err := f.Write(head); err != nil {
		return nil, err
	}
	j := &journal{file: f, aead: aead, size: int64(len(head))}
	if err := write(j); err != nil {
		return nil, err
	}
	if _, err := j.append(recordBase, at, nil, nil); err != nil {
		return nil, err
	}
	j.base = j.size
	if err := j.sync(); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	return j, durable.SyncDir(dir)
}
