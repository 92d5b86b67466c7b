// SPDX-License-Identifier: Apache-2.0

package reload

// A broken is an item that cannot be read because of err: something is wrong with what
// a Source finds, rather than with the files of one item.
type broken struct {
	of   Source
	text string // names it in messages
	err  error
}

type brokenKey struct {
	of   Source
	text string
}

func (b *broken) key() any               { return brokenKey{b.of, b.text} }
func (b *broken) String() string         { return b.text }
func (b *broken) held() bool             { return false }
func (b *broken) paths() []string        { return nil }
func (b *broken) read() (content, error) { return content{}, b.err }

// check is not reached, since nothing can be read.
func (b *broken) check(content, func(string) ([]byte, error)) (*version, error) { return nil, b.err }
