// SPDX-License-Identifier: Apache-2.0

package reload

import "fmt"

// A broken is an item that cannot be read because of err: something is wrong with what
// a Source finds, rather than with the files of one item.
type broken struct {
	of     Source
	name   string // which of them; "" if the Source finds nothing at all
	places []string
	err    error
}

type brokenKey struct {
	of   Source
	name string
}

func (b *broken) key() any               { return brokenKey{b.of, b.name} }
func (b *broken) paths() []string        { return b.places }
func (b *broken) read() (content, error) { return content{}, b.err }

// check is not reached, since nothing can be read.
func (b *broken) check(content, func(string) ([]byte, error)) (*version, error) { return nil, b.err }

func (b *broken) String() string {
	if b.name == "" {
		return b.of.String()
	}
	return fmt.Sprintf("pair %.100q of %s", b.name, b.of)
}
