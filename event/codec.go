// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
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

// An encoder appends fields: tag (2 bytes), length (4 bytes), value, all
// big-endian. Zero values are left out.
type encoder struct{ b []byte }

func (e *encoder) bytes(t tag, v []byte) {
	if len(v) != 0 {
		e.field(t, v)
	}
}

// field writes the value even if it is empty, as an element of a list.
func (e *encoder) field(t tag, v []byte) {
	e.b = binary.BigEndian.AppendUint16(e.b, uint16(t))
	e.b = binary.BigEndian.AppendUint32(e.b, uint32(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) string(t tag, v string) { e.bytes(t, []byte(v)) }

func (e *encoder) uint(t tag, v uint64) {
	if v != 0 {
		e.field(t, binary.BigEndian.AppendUint64(nil, v))
	}
}

// time is nanoseconds since 1970 UTC.
func (e *encoder) time(t tag, v time.Time) {
	if !v.IsZero() {
		e.field(t, binary.BigEndian.AppendUint64(nil, uint64(v.UnixNano())))
	}
}

func (e *encoder) nested(t tag, v func(*encoder)) {
	var inner encoder
	v(&inner)
	e.field(t, inner.b)
}

// A field is a decoded tag and its value, which aliases the input.
type field struct {
	tag   tag
	value []byte
}

// decode calls take for each field. take returns errUnknown for a tag that it
// does not know.
func decode(b []byte, take func(field) error) error {
	for len(b) > 0 {
		if len(b) < 6 {
			return fmt.Errorf("%w: a cut field", ErrMalformed)
		}
		f := field{tag: tag(binary.BigEndian.Uint16(b))}
		n := binary.BigEndian.Uint32(b[2:])
		b = b[6:]
		if uint64(n) > uint64(len(b)) {
			return fmt.Errorf("%w: field %d is longer than the rest", ErrMalformed, f.tag)
		}
		f.value, b = b[:n:n], b[n:]
		switch err := take(f); {
		case err == nil:
		case errors.Is(err, errUnknown) && f.tag >= optional:
		case errors.Is(err, errUnknown):
			return fmt.Errorf("%w: field %d", ErrUnsupported, f.tag)
		default:
			return err
		}
	}
	return nil
}

var errUnknown = errors.New("unknown field")

func (f field) uint(to *uint64) error {
	if len(f.value) != 8 {
		return fmt.Errorf("%w: field %d is not a number", ErrMalformed, f.tag)
	}
	*to = binary.BigEndian.Uint64(f.value)
	return nil
}

func (f field) time(to *time.Time) error {
	var n uint64
	if err := f.uint(&n); err != nil {
		return err
	}
	*to = time.Unix(0, int64(n)).UTC()
	return nil
}

func (f field) duration(to *time.Duration) error {
	var n uint64
	if err := f.uint(&n); err != nil {
		return err
	}
	if int64(n) < 0 {
		return fmt.Errorf("%w: field %d is a negative duration", ErrMalformed, f.tag)
	}
	*to = time.Duration(n)
	return nil
}

// string takes at most limit bytes.
func (f field) string(to *string, limit int) error {
	if len(f.value) > limit {
		return fmt.Errorf("%w: field %d has %d bytes, more than %d", ErrMalformed, f.tag, len(f.value), limit)
	}
	*to = string(f.value)
	return nil
}

// add appends to a list of at most limit elements.
func add[T any](f field, to *[]T, limit int, v T) error {
	if len(*to) >= limit {
		return fmt.Errorf("%w: more than %d of field %d", ErrMalformed, limit, f.tag)
	}
	*to = append(*to, v)
	return nil
}
