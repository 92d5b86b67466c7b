// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// sector is what a disk writes as a whole, in bytes.
const sector = 512

// maxStates bounds what one moment of a scenario may leave: a scenario that leaves
// more is to be made smaller.
const maxStates = 50_000

// A file as it is found after a power cut.
type file struct {
	data []byte
	perm fs.FileMode
	dir  bool
}

// A state is the files that a power cut leaves, by their slash-separated paths.
type state map[string]file

// states returns all that a power cut may leave now. Of the changes to the names of a
// directory since that was synced any may be missing; of what was written to a file
// since that was, any end may, cut between two writes or at a sector's border, or be
// zeroes, and so may any one sector before what is there.
func (d *disk) states() ([]state, error) {
	contents := []map[*node][]byte{{}}
	for _, n := range d.nodes() {
		if n.dir || !n.unsynced() {
			continue
		}
		var more []map[*node][]byte
		for _, c := range contents {
			for _, data := range n.leftovers() {
				with := maps.Clone(c)
				with[n] = data
				more = append(more, with)
			}
		}
		if contents = more; len(contents) > maxStates {
			return nil, fmt.Errorf("more than %d states of the files' contents", maxStates)
		}
	}
	var all []state
	for _, c := range contents {
		found, err := d.root.found(c, "")
		if err != nil {
			return nil, err
		}
		if all = append(all, found...); len(all) > maxStates {
			return nil, fmt.Errorf("more than %d states", maxStates)
		}
	}
	return all, nil
}

// nodes returns all that a power cut may leave, each once.
func (d *disk) nodes() []*node {
	var all []*node
	seen := make(map[*node]bool)
	var add func(*node)
	add = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		all = append(all, n)
		for _, child := range n.names {
			add(child)
		}
		for _, c := range n.undone {
			add(c.node)
		}
	}
	add(d.root)
	return all
}

// leftovers returns what a file that is not synced may hold.
func (n *node) leftovers() [][]byte {
	from := len(n.synced)
	var all [][]byte
	if n.emptied {
		from = 0
		all = append(all, n.synced)
	}
	for end := from; ; end = min((end/sector+1)*sector, len(n.data)) {
		all = append(all, n.data[:end])
		if end == len(n.data) {
			return all
		}
		zeroes := slices.Clone(n.data)
		clear(zeroes[end:])
		hole := slices.Clone(n.data)
		clear(hole[end:min((end/sector+1)*sector, len(n.data))])
		all = append(all, zeroes, hole)
	}
}

// found returns what may be found of a directory, given what is in the files.
func (n *node) found(contents map[*node][]byte, at string) ([]state, error) {
	var all []state
	for _, names := range n.kept() {
		states := []state{{}}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			child, where := names[name], path.Join(at, name)
			if !child.dir {
				data, ok := contents[child]
				if !ok {
					data = child.synced
				}
				for _, s := range states {
					s[where] = file{data: data, perm: child.perm}
				}
				continue
			}
			below, err := child.found(contents, where)
			if err != nil {
				return nil, err
			}
			var more []state
			for _, s := range states {
				for _, b := range below {
					with := maps.Clone(s)
					maps.Copy(with, b)
					with[where] = file{perm: child.perm, dir: true}
					more = append(more, with)
				}
			}
			if states = more; len(states) > maxStates {
				return nil, fmt.Errorf("more than %d states of %s", maxStates, where)
			}
		}
		all = append(all, states...)
	}
	return all, nil
}

// maxFree is how many changes to the names of a directory are taken in any choice.
// Of more than that, any number of the first ones are on the disk, or all but one.
const maxFree = 6

// kept returns what names a directory may have.
func (n *node) kept() []map[string]*node {
	var all []map[string]*node
	keep := func(chosen func(i int) bool) {
		names := maps.Clone(n.names)
		for i, c := range n.undone {
			if chosen(i) {
				c.apply(names)
			}
		}
		all = append(all, names)
	}
	if len(n.undone) <= maxFree {
		for bits := range 1 << len(n.undone) {
			keep(func(i int) bool { return bits>>i&1 != 0 })
		}
		return all
	}
	for k := range len(n.undone) + 1 {
		keep(func(i int) bool { return i < k })
		keep(func(i int) bool { return i != k })
	}
	return all
}
