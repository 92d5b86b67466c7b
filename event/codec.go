// SPDX-License-Identifier: Apache-2.0

package event

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// ErrMalformed means that bytes are not an event.
var ErrMalformed = errors.New("event: malformed")

// ErrUnsupported means that an event needs a newer reader: its version is
// higher, or it has a required field that this one does not know.
var ErrUnsupported = errors.New("event: made by a newer keyturn")

// A tag numbers a field. The upper half, from optional on, may be skipped by a
// reader that does not know it; an unknown tag of the lower half makes the
// whole event ErrUnsupported.
type tag uint16

const optional tag = 0x8000

// A message has fields. It lists them once, for both directions: encoding
// appends each in this order, zero values left out; decoding offers each field
// of the input to the list.
type message interface{ fields(*codec) }

// A codec goes through a message's fields. A field is its tag (2 bytes), its
// length (4 bytes) and its value, all big-endian.
type codec struct {
	out []byte // what was encoded

	decoding bool
	tag      tag    // of the field at hand
	value    []byte // aliases the input
	known    bool   // the message has such a field
	err      error  // the first
}

// most notes that a field to be encoded is more than a reader takes.
func (c *codec) most(t tag, n, limit int, what string) {
	if n > limit && c.err == nil {
		c.err = fmt.Errorf("field %d has %d %s, more than %d", t, n, what, limit)
	}
}

func encode(m message) []byte {
	b, _ := encodeChecked(m)
	return b
}

// encodeChecked is encode with an error where decode would refuse what comes of it.
func encodeChecked(m message) ([]byte, error) {
	var c codec
	m.fields(&c)
	return c.out, c.err
}

func decode(b []byte, m message) error {
	c := codec{decoding: true}
	for len(b) > 0 {
		if len(b) < 6 {
			return fmt.Errorf("%w: a cut field", ErrMalformed)
		}
		c.tag, c.known = tag(binary.BigEndian.Uint16(b)), false
		n := binary.BigEndian.Uint32(b[2:])
		b = b[6:]
		if uint64(n) > uint64(len(b)) {
			return fmt.Errorf("%w: field %d is longer than the rest", ErrMalformed, c.tag)
		}
		c.value, b = b[:n:n], b[n:]
		m.fields(&c)
		if c.err != nil {
			return c.err
		}
		if !c.known && c.tag < optional {
			return fmt.Errorf("%w: field %d", ErrUnsupported, c.tag)
		}
	}
	return nil
}

// put appends a field.
func (c *codec) put(t tag, v []byte) {
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(t))
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(v)))
	c.out = append(c.out, v...)
}

// is reports whether the field at hand is t.
func (c *codec) is(t tag) bool {
	if c.tag != t {
		return false
	}
	c.known = true
	return true
}

func (c *codec) malformed(format string, v ...any) {
	c.err = fmt.Errorf("%w: field %d %s", ErrMalformed, c.tag, fmt.Sprintf(format, v...))
}

func (c *codec) bytes(t tag, v *[]byte) {
	if !c.decoding {
		if len(*v) != 0 {
			c.put(t, *v)
		}
	} else if c.is(t) {
		*v = c.value
	}
}

// string has at most limit bytes.
func (c *codec) string(t tag, v *string, limit int) {
	if !c.decoding {
		c.most(t, len(*v), limit, "bytes")
		if *v != "" {
			c.put(t, []byte(*v))
		}
	} else if c.is(t) {
		if len(c.value) > limit {
			c.malformed("has %d bytes, more than %d", len(c.value), limit)
			return
		}
		*v = string(c.value)
	}
}

func (c *codec) uint(t tag, v *uint64) {
	if !c.decoding {
		if *v != 0 {
			c.put(t, binary.BigEndian.AppendUint64(nil, *v))
		}
	} else if c.is(t) {
		if len(c.value) != 8 {
			c.malformed("is not a number")
			return
		}
		*v = binary.BigEndian.Uint64(c.value)
	}
}

// bool is 1 or left out.
func (c *codec) bool(t tag, v *bool) {
	var n uint64
	if *v && !c.decoding {
		n = 1
	}
	c.uint(t, &n)
	if c.decoding && n != 0 {
		*v = true
	}
}

// time is nanoseconds since 1970 UTC.
func (c *codec) time(t tag, v *time.Time) {
	var n uint64
	if !v.IsZero() && !c.decoding {
		n = uint64(v.UnixNano())
	}
	c.uint(t, &n)
	if c.decoding && c.tag == t {
		*v = time.Unix(0, int64(n)).UTC()
	}
}

func (c *codec) duration(t tag, v *time.Duration) {
	n := uint64(*v)
	c.uint(t, &n)
	if c.decoding && int64(n) < 0 {
		c.malformed("is a negative duration")
		return
	}
	*v = time.Duration(n)
}

// signed is a duration that may be below zero, in two's complement.
func (c *codec) signed(t tag, v *time.Duration) {
	n := uint64(*v)
	c.uint(t, &n)
	*v = time.Duration(n)
}

// keyIDs is a list of at most limit key ids.
func (c *codec) keyIDs(t tag, v *[]seal.KeyID, limit int) {
	if !c.decoding {
		c.most(t, len(*v), limit, "elements")
		for i := range *v {
			c.put(t, (*v)[i][:])
		}
	} else if c.is(t) {
		var id seal.KeyID
		if c.keyID(t, &id); c.err == nil {
			add(c, v, limit, id)
		}
	}
}

func (c *codec) keyID(t tag, v *seal.KeyID) {
	if !c.decoding {
		c.put(t, v[:])
	} else if c.is(t) {
		if len(c.value) != len(v) {
			c.malformed("is a key id of %d bytes", len(c.value))
			return
		}
		copy(v[:], c.value)
	}
}

// strings and blobs are lists of at most limit elements, which may be empty.
func (c *codec) strings(t tag, v *[]string, limit, maxLength int) {
	if !c.decoding {
		c.most(t, len(*v), limit, "elements")
		for _, s := range *v {
			c.most(t, len(s), maxLength, "bytes")
			c.put(t, []byte(s))
		}
		return
	}
	if c.is(t) {
		var s string
		c.string(t, &s, maxLength)
		add(c, v, limit, s)
	}
}

func (c *codec) blobs(t tag, v *[][]byte, limit int) {
	if !c.decoding {
		c.most(t, len(*v), limit, "elements")
		for _, b := range *v {
			c.put(t, b)
		}
	} else if c.is(t) {
		add(c, v, limit, c.value)
	}
}

func add[T any](c *codec, to *[]T, limit int, v T) {
	if len(*to) >= limit {
		c.malformed("stands there more than %d times", limit)
		return
	}
	*to = append(*to, v)
}

// message is a message in a field.
func (c *codec) message(t tag, m message) {
	if !c.decoding {
		b, err := encodeChecked(m)
		c.err = cmp.Or(c.err, err)
		c.put(t, b)
	} else if c.is(t) {
		c.err = decode(c.value, m)
	}
}

// pointer is a message that may be missing.
func pointer[T any, M interface {
	*T
	message
}](c *codec, t tag, v **T,
) {
	if !c.decoding && *v == nil || c.decoding && c.tag != t {
		return
	}
	if c.decoding {
		*v = new(T)
	}
	c.message(t, M(*v))
}

// messages is a list of at most limit messages.
func messages[T any, M interface {
	*T
	message
}](c *codec, t tag, v *[]T, limit int,
) {
	if !c.decoding {
		c.most(t, len(*v), limit, "elements")
		for i := range *v {
			c.message(t, M(&(*v)[i]))
		}
	} else if c.tag == t {
		var m T
		c.message(t, M(&m))
		add(c, v, limit, m)
	}
}
