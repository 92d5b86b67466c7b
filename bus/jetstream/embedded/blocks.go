// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/highwayhash"
)

// ErrDamaged means that the server's files are damaged in a way that it cannot be
// started with, or that it would not tell of.
var ErrDamaged = errors.New("embedded bus: its files are damaged")

// A record in a file of messages ("*.blk") of NATS' file store is its length (4
// bytes, little-endian; the highest bit says that there is a header), its sequence (8
// bytes; the two highest bits say something else), its time (8), the length of its
// subject (2), the subject, the length of its header (4) if there is one, the rest,
// and a checksum (8): HighwayHash-64 of all of it but the lengths.
const (
	blockHeader   = 22
	blockChecksum = 8
	lengthBits    = 1<<31 - 1
	headerBit     = 1 << 31
	sequenceBits  = 1<<62 - 1
	tombstoneBit  = 1 << 62
	// maxGap bounds how far the sequences of two records of a file are apart. Far
	// less fit into one, of 8 MiB.
	maxGap = 1 << 24
	// maxSequence is more than any log comes to.
	maxSequence = 1 << 48
)

// checkBlocks looks at all messages under a directory. Where a sequence is impossible
// the server cannot be started: it believes sequences before it has looked at
// checksums, and takes four bytes of memory for each between two. Other records that
// are damaged it may not read for a long time, and then takes no message any more;
// they are let through if salvage is true.
func checkBlocks(dir string, salvage bool) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.Type().IsRegular() && filepath.Ext(path) == ".blk":
			return checkBlock(path, salvage)
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("embedded bus: looking at its files: %w", err)
	}
	return err
}

// checkBlock looks at one file. What has nothing good behind it is not damage: it may
// be a message whose writing a power cut has ended, and which nobody was told of. The
// server leaves it out.
func checkBlock(path string, salvage bool) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sums, err := sumsOf(path)
	if err != nil {
		return err
	}
	var last uint64
	for at := 0; len(data)-at >= blockHeader; {
		length := int(binary.LittleEndian.Uint32(data[at:]) & lengthBits)
		if length < blockHeader {
			return sums.damaged(path, data, at, salvage)
		}
		if sequence := binary.LittleEndian.Uint64(data[at+4:]); sequence&tombstoneBit == 0 {
			sequence &= sequenceBits
			if last > 0 && sequence > last+maxGap {
				return fmt.Errorf("%w: %s, byte %d: message %d follows message %d", ErrDamaged, path, at, sequence, last)
			}
			last = max(last, sequence)
		}
		if !sums.good(data[at:]) {
			if err := sums.damaged(path, data, at, salvage); err != nil {
				return err
			}
		}
		at += length
	}
	return nil
}

// A blockSums checks the records of one file.
type blockSums struct{ *highwayhash.Digest64 }

// sumsOf returns what checks the records of a file. NATS has a key for each, made
// of the names of stream and file, so that no record passes in another.
func sumsOf(path string) (blockSums, error) {
	stream := filepath.Base(filepath.Dir(filepath.Dir(path)))
	key := sha256.Sum256([]byte(stream + "-" + strings.TrimSuffix(filepath.Base(path), ".blk")))
	hash, err := highwayhash.NewDigest64(key[:])
	return blockSums{hash}, err
}

// good reports whether data begins with a record that has the right checksum.
func (s blockSums) good(data []byte) bool {
	if len(data) < blockHeader+blockChecksum {
		return false
	}
	head := binary.LittleEndian.Uint32(data)
	length := int(head & lengthBits)
	subject := blockHeader + int(binary.LittleEndian.Uint16(data[20:]))
	rest := subject
	if head&headerBit != 0 {
		rest += 4
	}
	if length > len(data) || rest > length-blockChecksum {
		return false
	}
	sum := length - blockChecksum
	s.Reset()
	s.Write(data[4:20])
	s.Write(data[blockHeader:subject])
	s.Write(data[rest:sum])
	return s.Sum64() == binary.LittleEndian.Uint64(data[sum:])
}

// damaged is the error for a file whose record at a place is not what was written, if
// there is a good one behind it.
func (s blockSums) damaged(path string, data []byte, at int, salvage bool) error {
	if salvage {
		return nil
	}
	for next := at + 1; len(data)-next > blockHeader; next++ {
		if binary.LittleEndian.Uint64(data[next+4:])&sequenceBits > maxSequence {
			continue // most places begin no record, which costs less to see here
		}
		if s.good(data[next:]) {
			return fmt.Errorf("%w: %s, byte %d: a message that is not what was written", ErrDamaged, path, at)
		}
	}
	return nil
}
