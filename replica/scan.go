// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"runtime"
	"slices"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// chunkSize is how much of a file is decoded as one, in bytes: at least the largest
// record. What is read is in memory only until it is decoded.
const chunkSize = 1 << 20

// contents is what was read from one file.
type contents struct {
	segment  *segment
	entries  [][]restored // by chunk
	position bus.Position // of the last record
	records  uint64
	complete bool // the base record was there
	clean    bool // it was good to the end
	size     int64
}

// all returns what the records hold, in their order.
func (c *contents) all() iter.Seq[*restored] {
	return func(yield func(*restored) bool) {
		for _, part := range c.entries {
			for i := range part {
				if !yield(&part[i]) {
					return
				}
			}
		}
	}
}

// restored is what a record holds, but for its position.
type restored struct {
	kind recordKind
	end  int64 // where the record ends in the file

	// Of recordEntry and recordSealed; err says that it cannot be read, and nothing
	// else does then.
	id   string
	held *held
	lazy keyturn.Lazy // of a certificate, but for Open
	err  error
}

// A chunk is some records that follow each other.
type chunk struct {
	data   []byte // whole records
	number uint64 // of the first
	count  int
	offset int64 // in the file

	// Set once done is closed.
	done     chan struct{}
	entries  []restored
	position bus.Position // of the last good one
	damaged  bool         // there is one that is not good
}

// decodeJournal decodes as many records as are good, on all cores.
func decodeJournal(keys []*seal.PrivateKey, tenant, group string, file io.ReaderAt) (*contents, error) {
	head := make([]byte, headSize)
	if _, err := file.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if !bytes.HasPrefix(head, []byte(magic)) {
		return nil, errors.New("it is not a snapshot, or was cut at its start")
	}
	id := seal.KeyID(head[len(magic):])
	i := slices.IndexFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().ID() == id })
	if i < 0 {
		return nil, fmt.Errorf("it was written with the group's key %s, which is not here", id)
	}
	aead, err := fileKey(keys[i], tenant, group, head[headSize-saltSize:])
	if err != nil {
		return nil, err
	}
	c := &contents{segment: &segment{file, aead}, clean: true, size: int64(headSize)}

	queue, buffers := make(chan *chunk, runtime.GOMAXPROCS(0)), make(chan []byte, runtime.GOMAXPROCS(0)+1)
	for range cap(buffers) {
		buffers <- make([]byte, chunkSize)
	}
	whole, failed := false, error(nil)
	go func() {
		defer close(queue)
		whole, failed = chunks(file, buffers, func(k *chunk) {
			queue <- k
			go func() {
				defer close(k.done)
				k.decode(c.segment, tenant, group)
				buffers <- k.data[:chunkSize]
			}()
		})
	}()
	for k := range queue {
		if <-k.done; c.clean {
			c.add(k)
		}
	}
	if failed != nil {
		return nil, failed
	}
	c.clean = c.clean && whole
	return c, nil
}

// chunks cuts a file into chunks, in the buffers that it gets, and reports whether it
// ends with a whole record.
func chunks(file io.ReaderAt, buffers <-chan []byte, each func(*chunk)) (whole bool, err error) {
	offset, number := int64(headSize), uint64(0)
	for {
		b := <-buffers
		n, err := file.ReadAt(b, offset)
		if err != nil && err != io.EOF {
			return false, err
		}
		k := &chunk{number: number, offset: offset, done: make(chan struct{})}
		size := 0
		for {
			one := recordSize(b[size:n])
			if one == 0 {
				break
			}
			size += one
			number++
			k.count++
		}
		if size == 0 {
			return n == 0, nil
		}
		k.data = b[:size]
		offset += int64(size)
		each(k)
	}
}

// decode decodes the records, up to one that is not good.
func (k *chunk) decode(from *segment, tenant, group string) {
	number, at := k.number, k.offset
	k.entries = make([]restored, 0, k.count)
	for rest := k.data; len(rest) > 0; number++ {
		n := recordSize(rest)
		rec, err := decodeRecord(from.aead, number, rest[:n:n])
		if err != nil {
			k.damaged = true
			return
		}
		one := restored{kind: rec.kind, end: at + int64(n)}
		if rec.kind == recordEntry || rec.kind == recordSealed {
			one.decode(rec.event, tenant, group)
		}
		if one.held != nil {
			one.held.text.Store(&text{segment: from, number: number, offset: at, size: n})
		}
		k.entries, k.position = append(k.entries, one), rec.position
		rest, at = rest[n:], one.end
	}
}

// add adds the next chunk.
func (c *contents) add(k *chunk) {
	for _, one := range k.entries {
		c.records++
		if one.kind == recordBase {
			c.complete = true
		}
		c.size = one.end
	}
	if len(k.entries) > 0 {
		c.position = k.position
	}
	c.entries = append(c.entries, k.entries)
	c.clean = !k.damaged
}

// decode sets what follows from the event, of whose bytes it keeps none.
func (o *restored) decode(data []byte, tenant, group string) {
	e, err := event.Trusted(tenant, data)
	if err != nil {
		o.err = err
		return
	}
	h := &held{proven: o.kind == recordEntry, sum: maphash.Bytes(sums, data)}
	of := ""
	switch b := e.Body.(type) {
	case *event.Certificate:
		h.version, o.id, of = b.Version, b.ID, b.Group
		h.describe(b)
		o.lazy = lazy(b, e.Time)
	case *event.Removal:
		h.version, h.removed, o.id, of = b.Version, true, b.ID, b.Group
	default:
		o.err = fmt.Errorf("an event of another type under %s", e.Key)
		return
	}
	if of != group {
		o.err = fmt.Errorf("an event of group %q", of)
		return
	}
	o.held = h
}
