// SPDX-License-Identifier: Apache-2.0

package reload

// maxOnce bounds what is remembered: files that are bad in ever new ways are logged
// anew after so many.
const maxOnce = 32

// once tells what was said before. Its zero value has heard nothing.
type once struct{ said map[string]bool }

// first reports whether text is new, and remembers it.
func (o *once) first(text string) bool {
	if o.said[text] {
		return false
	}
	if o.said == nil || len(o.said) >= maxOnce {
		o.said = make(map[string]bool)
	}
	o.said[text] = true
	return true
}

func (o *once) has(text string) bool { return o.said[text] }
func (o *once) any() bool            { return len(o.said) > 0 }
