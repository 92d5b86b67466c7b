// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// An inotify watches directories (inotify(7)), never files: a file that is replaced
// by renaming another over it is a new one, of which its watch does not know.
//
// Watched is every directory that a path leads through, for the name by which it goes
// on there, symbolic links included: so it is noticed when the file is exchanged, and
// when a link (Kubernetes' ..data), or a directory above, is.
type inotify struct {
	file    *os.File // closing it ends a read, since it does not block
	conn    syscall.RawConn
	changes chan<- struct{}
	done    chan struct{}

	mu    sync.Mutex
	names map[int32]namesOf // by watch descriptor
}

// namesOf are what is of interest in a directory; "" is everything.
type namesOf = map[string]bool

// interesting are the events that can mean other content. A file that is written is
// looked at when it is closed; IN_ATTRIB tells of chmod.
const interesting = syscall.IN_CLOSE_WRITE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM | syscall.IN_CREATE |
	syscall.IN_DELETE | syscall.IN_ATTRIB | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF

func newNotifier(changes chan<- struct{}) (notifier, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("starting inotify: %w; raise fs.inotify.max_user_instances, or the limit of open files", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	n := &inotify{file: file, conn: conn, changes: changes, done: make(chan struct{}), names: make(map[int32]namesOf)}
	go n.read()
	return n, nil
}

// watch adds all directories anew each time: the kernel knows those it has, and finds
// those that were replaced. What cannot be watched because it is not there, or must not
// be read, is left to polling.
func (n *inotify) watch(paths []string) (added bool, err error) {
	places := make(map[string]namesOf)
	for _, path := range paths {
		follow(places, path)
	}
	n.mu.Lock() // so that no event is judged by what was watched before
	defer n.mu.Unlock()
	next := make(map[int32]namesOf, len(places))
	closed := n.conn.Control(func(fd uintptr) {
		for dir, wanted := range places {
			wd, e := syscall.InotifyAddWatch(int(fd), dir, interesting|syscall.IN_ONLYDIR)
			switch {
			case e == syscall.ENOSPC || e == syscall.ENOMEM:
				err = fmt.Errorf("watching %s: %w; raise fs.inotify.max_user_watches", dir, e)
				continue
			case e != nil:
				continue
			}
			if _, ok := n.names[int32(wd)]; !ok {
				added = true
			}
			if next[int32(wd)] == nil {
				next[int32(wd)] = wanted
			} else { // mounted in two places
				for name := range wanted {
					next[int32(wd)][name] = true
				}
			}
		}
		for wd := range n.names {
			if next[wd] == nil {
				// It fails if the directory is gone, and its watch with it.
				_, _ = syscall.InotifyRmWatch(int(fd), uint32(wd))
			}
		}
	})
	n.names = next
	return added, errors.Join(err, closed)
}

// maxLinks is how many symbolic links the kernel follows in a path (path_resolution(7)).
const maxLinks = 40

// follow notes the directories that path leads through, and the name in each.
func follow(places map[string]namesOf, path string) {
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return
		}
		path = dir + "/" + path
	}
	note := func(dir, name string) {
		if places[dir] == nil {
			places[dir] = make(namesOf)
		}
		places[dir][name] = true
	}
	dir, links := "/", 0
	for left := strings.Split(path, "/"); len(left) > 0; {
		name := left[0]
		left = left[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Dir(dir) // which has no links in it
			continue
		}
		note(dir, name)
		next := filepath.Join(dir, name)
		target, err := os.Readlink(next)
		if err != nil { // no link, or not there
			dir = next
			continue
		}
		if links++; links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		note(dir, "")
	}
}

// read signals changes until the file is closed.
func (n *inotify) read() {
	defer close(n.done)
	buf := make([]byte, 16<<10) // an event has at most 272 bytes
	for {
		size, err := n.file.Read(buf)
		if err != nil {
			return
		}
		if n.concerns(buf[:size]) {
			select {
			case n.changes <- struct{}{}:
			default:
			}
		}
	}
}

// concerns reports whether one of the events is about what is watched.
func (n *inotify) concerns(events []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(events) >= syscall.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		end := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := strings.TrimRight(string(events[syscall.SizeofInotifyEvent:min(end, len(events))]), "\x00")
		events = events[min(end, len(events)):]
		wanted, ok := n.names[wd]
		switch {
		case mask&syscall.IN_Q_OVERFLOW != 0: // anything may have happened
			return true
		case !ok, mask&syscall.IN_IGNORED != 0: // a watch that was removed
		case name == "", wanted[""], wanted[name]:
			return true
		}
	}
	return false
}

func (n *inotify) close() {
	_ = n.file.Close()
	<-n.done
}
