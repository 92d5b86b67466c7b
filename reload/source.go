// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
)

// A Source is files, and what they feed. [KeyPair], [PEM], [Directory] and [CAs] make
// Sources. They read nothing yet, and may be given to several calls of [Watch].
type Source interface {
	// items returns what is to be kept, as the files say now, and the folders to watch
	// for more of it. An error is about finding them, not about any one of them; the
	// folders then are to be watched for its end.
	items() (items []item, folders []string, err error)

	String() string
}

// An item is one pair or one pool: what is swapped together.
type item interface {
	// key is comparable, and the same for all items that feed one place.
	key() any

	// paths returns the files, and folders with files, that the item is read from.
	paths() []string

	// read reads them.
	read() (content, error)

	// check parses what was read. It keeps nothing of c.
	check(c content, passphrase func(file string) ([]byte, error)) (*version, error)

	// held reports whether what was put is still there: others may remove it.
	held() bool

	// String names the item and its files in messages.
	String() string
}

// A version is what one content of an item's files means: checked, and ready to be put.
type version struct {
	identity sum          // of the certificates: two with the same need no swap
	put      func() error // makes it live
	message  string       // says that it is live
	attrs    []any        // go with the message
	warnings []string     // what is not wrong enough to refuse
}

// A content is the bytes of an item's files, which may be private keys.
type content struct {
	parts [][]byte
	mode  fs.FileMode // of the file with the key
}

// clear overwrites the bytes. What is served has copies of its own.
func (c content) clear() {
	for _, part := range c.parts {
		clear(part)
	}
}

// A sum is a SHA-256 hash: it stands for files that are not kept.
type sum [sha256.Size]byte

func (c content) sum() sum { return sumOf(c.parts...) }

// sumOf hashes parts, each after its length, so that no byte can move from one to
// another unnoticed.
func sumOf(parts ...[]byte) (s sum) {
	h := sha256.New()
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	h.Sum(s[:0])
	return s
}
