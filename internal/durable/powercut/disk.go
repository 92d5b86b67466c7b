// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/internal/durable"
)

// A node is a file or a directory, as the process sees it and as it certainly is on
// the disk.
type node struct {
	perm fs.FileMode
	dir  bool

	// Of a directory.
	names  map[string]*node // that are on the disk
	undone []change         // since then, in their order

	// Of a file.
	data    []byte // as the process sees it
	synced  []byte // as it is on the disk
	emptied bool   // since then
}

// A change is one to the names of a directory. Each may be on the disk or not.
type change struct {
	gone string // "" if no name goes
	name string // "" if none comes
	node *node
}

func (c change) apply(names map[string]*node) {
	delete(names, c.gone)
	if c.name != "" {
		names[c.name] = c.node
	}
}

func newDir() *node { return &node{dir: true, perm: durable.PrivateDir, names: make(map[string]*node)} }

// now returns a directory's names as the process sees them.
func (n *node) now() map[string]*node {
	names := maps.Clone(n.names)
	for _, c := range n.undone {
		c.apply(names)
	}
	return names
}

// unsynced reports whether a file may be another on the disk.
func (n *node) unsynced() bool { return n.emptied || len(n.data) != len(n.synced) }

// A disk is what a process has done to a directory and all below it.
type disk struct {
	root *node
	open map[*durable.File]*node
}

// readDisk takes what is at root for something that has always been there.
func readDisk(root string) (*disk, error) {
	d := &disk{root: newDir(), open: make(map[*durable.File]*node)}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		n := newDir()
		if n.perm = info.Mode().Perm(); !e.IsDir() {
			n.dir = false
			if n.data, err = os.ReadFile(path); err != nil {
				return err
			}
			n.synced = n.data
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		dir, name := d.in(rel)
		dir.names[name] = n
		return nil
	})
	return d, err
}

// in returns the directory that a path, relative to the root, lies in, and its name
// there. The directory is nil if there is none.
func (d *disk) in(rel string) (*node, string) {
	dir := d.root
	parts := strings.Split(rel, string(filepath.Separator))
	for _, p := range parts[:len(parts)-1] {
		if dir = dir.now()[p]; dir == nil {
			return nil, ""
		}
	}
	return dir, parts[len(parts)-1]
}

func (d *disk) at(rel string) *node {
	if rel == "." {
		return d.root
	}
	dir, name := d.in(rel)
	if dir == nil {
		return nil
	}
	return dir.now()[name]
}

// take does what a step did. Its paths are relative to the root.
func (d *disk) take(s durable.Step, perm fs.FileMode) {
	switch s.Op {
	case durable.OpOpen:
		d.opened(s, perm)
	case durable.OpWrite:
		if n := d.open[s.File]; n != nil {
			n.data = append(n.data[:len(n.data):len(n.data)], s.Data...)
		}
	case durable.OpSync:
		if n := d.open[s.File]; n != nil {
			n.synced, n.emptied = n.data, false
		}
	case durable.OpMkdir:
		d.change(s.Path, "", s.Path, newDir())
	case durable.OpLink:
		d.change(s.Path, "", s.To, d.at(s.Path))
	case durable.OpRename:
		d.change(s.Path, s.Path, s.To, d.at(s.Path))
	case durable.OpRemove:
		d.remove(s.Path)
	case durable.OpNames:
		if n := d.at(s.Path); n != nil {
			n.names, n.undone = n.now(), nil
		}
	}
}

func (d *disk) opened(s durable.Step, perm fs.FileMode) {
	n := d.at(s.Path)
	if n == nil {
		n = &node{perm: perm}
		d.change(s.Path, "", s.Path, n)
	}
	if s.Flag&os.O_TRUNC != 0 {
		n.data, n.emptied = nil, true
	}
	d.open[s.File] = n
}

func (d *disk) change(in, gone, name string, n *node) {
	dir, _ := d.in(in)
	if dir == nil || name != "" && n == nil {
		return
	}
	c := change{node: n}
	if gone != "" {
		c.gone = filepath.Base(gone)
	}
	if name != "" {
		c.name = filepath.Base(name)
	}
	dir.undone = append(dir.undone, c)
}

// remove removes what is below a directory first, each on its own.
func (d *disk) remove(rel string) {
	n := d.at(rel)
	if n == nil {
		return
	}
	if n.dir {
		for name := range n.now() {
			d.remove(filepath.Join(rel, name))
		}
	}
	d.change(rel, rel, "", nil)
}

// clone returns a copy that shares nothing that changes. Files that are open in d
// are open in no process that comes after it.
func (d *disk) clone() *disk {
	copies := make(map[*node]*node)
	var clone func(n *node) *node
	clone = func(n *node) *node {
		if n == nil {
			return nil
		}
		if c := copies[n]; c != nil {
			return c
		}
		c := *n
		copies[n] = &c
		c.names = make(map[string]*node)
		for name, child := range n.names {
			c.names[name] = clone(child)
		}
		c.undone = make([]change, len(n.undone))
		for i, u := range n.undone {
			c.undone[i] = change{u.gone, u.name, clone(u.node)}
		}
		return &c
	}
	return &disk{root: clone(d.root), open: make(map[*durable.File]*node)}
}
