// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn"
)

// pauses lie between the looks at files that have changed. Files that are good must be
// the same in two looks; a fault must last for all of them, since many programs
// write a certificate and then its key, some milliseconds later.
var pauses = [...]time.Duration{10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond}

var errChanging = errors.New("its files change all the time; write to other names and rename them")

// A state is what is known of an item after a look. Nothing in it is secret.
type state struct {
	source   Source
	item     item
	live     bool // something of it was fed
	content  sum  // of the files that are live; of other files, if they mean the same
	identity sum
	faults   once // since the files were whole
	warnings once
}

// A finding is what a look finds out about an item.
type finding struct {
	source  Source
	item    item
	content sum      // zero if the files could not be read
	version *version // nil if err is not, or if what is live is in the files
	err     error
	times   int // that it was found in a row
}

// settle looks until all that is found has stayed the same long enough. It returns
// false if the Watcher was closed meanwhile. The caller holds mu.
func (w *Watcher) settle() ([]*finding, bool) {
	all := w.look(nil)
	for _, pause := range pauses {
		if w.settled(all) {
			break
		}
		if !w.wait(pause) {
			return nil, false
		}
		all = w.look(all)
	}
	for _, f := range all {
		if f.version != nil && f.times < 2 {
			f.version = nil
			f.fail(errChanging)
		}
	}
	select {
	case <-w.stop:
		return nil, false
	default:
		return all, true
	}
}

func (w *Watcher) settled(all []*finding) bool {
	for _, f := range all {
		switch st := w.states[f.item.key()]; {
		case f.err != nil && (st == nil || !st.faults.has(f.fault())):
			return false
		case f.version != nil && f.times < 2:
			return false
		}
	}
	return true
}

// look finds all items and reads them. before is what the look before this one found;
// what was unchanged then is not read again. The caller holds mu.
func (w *Watcher) look(before []*finding) []*finding {
	known := make(map[any]*finding)
	for _, f := range before {
		known[f.item.key()] = f
	}
	all := w.find()
	for _, f := range all {
		old := known[f.item.key()]
		if old != nil && old.err == nil && old.version == nil {
			f.content = old.content
			continue
		}
		w.read(f, old)
	}
	return all
}

// find returns the items there are, and those that were live and are not found any
// more, unless it is known why: reading those tells what is missing.
func (w *Watcher) find() []*finding {
	var all []*finding
	// A folder that is new is watched only after it was listed: so list it again.
	for range 3 {
		var paths []string
		all, paths = w.list()
		if w.notify == nil {
			break
		}
		for _, f := range all {
			paths = append(paths, f.item.paths()...)
		}
		added, err := w.notify.watch(paths)
		if err != nil {
			w.cannotNotify(err)
		}
		if !added {
			break
		}
	}
	return all
}

// list returns the items, and the folders to watch for more.
func (w *Watcher) list() (all []*finding, folders []string) {
	taken := make(map[any]bool)
	add := func(source Source, it item) {
		if taken[it.key()] {
			it = &broken{of: source, text: it.String(), err: errTwice}
		}
		taken[it.key()] = true
		all = append(all, &finding{source: source, item: it})
	}
	lost := make(map[Source]bool)
	for _, source := range w.sources {
		items, more, err := source.items()
		folders = append(folders, more...)
		if err != nil {
			lost[source] = true
			items = []item{&broken{of: source, text: source.String(), err: err}}
		}
		for _, it := range items {
			add(source, it)
		}
	}
	for key, st := range w.states {
		switch {
		case !st.live || lost[st.source] || taken[key]:
		case st.item.held():
			add(st.source, st.item)
		default: // it was removed, and so were its files
			delete(w.states, key)
		}
	}
	return all, folders
}

var errTwice = errors.New("another source feeds the same; leave one of them out, or give it another id")

// read reads one item and checks it, unless the look before, which may be nil, found
// the same.
func (w *Watcher) read(f, before *finding) {
	c, err := f.item.read()
	if err != nil {
		f.fail(err)
		return
	}
	defer c.clear()
	f.content = c.sum()
	if st := w.states[f.item.key()]; st != nil && st.live && st.content == f.content {
		return
	}
	f.times = 1
	if before != nil && before.content == f.content && (before.version != nil || before.err != nil) {
		f.version, f.err, f.times = before.version, before.err, before.times+1
		return
	}
	version, err := f.item.check(c, w.passphrase)
	if err != nil {
		f.fail(err)
		return
	}
	f.version = version
}

func (f *finding) fail(err error) { f.err = fmt.Errorf("reload: %s: %w", f.item, err) }

// fault is the same for what is the same fault at another time.
func (f *finding) fault() string {
	for _, err := range [...]error{keyturn.ErrExpired, keyturn.ErrNotYetValid, errAsking} {
		if errors.Is(f.err, err) {
			return fmt.Sprintf("%s %x", err, f.content)
		}
	}
	return f.err.Error()
}

func errorsOf(all []*finding) error {
	var errs []error
	for _, f := range all {
		errs = append(errs, f.err)
	}
	return errors.Join(errs...)
}

// feed makes live what is new and good, and logs. The error is of what was good and is
// refused now. The caller holds mu.
func (w *Watcher) feed(all []*finding) error {
	var errs []error
	current := make(map[any]bool)
	for _, f := range all {
		key := f.item.key()
		current[key] = true
		st := w.states[key]
		if st == nil {
			st = &state{source: f.source}
			w.states[key] = st
		}
		st.item = f.item
		if f.err == nil && f.version != nil && !(st.live && st.identity == f.version.identity) {
			if err := f.version.put(); err != nil {
				f.fail(err)
				errs = append(errs, f.err)
			}
		}
		w.record(st, f)
	}
	for key, st := range w.states {
		if !current[key] && !st.live { // all that is known of it is its fault
			w.logger.Info(recovered+": those at fault are gone", "from", st.item.String())
			delete(w.states, key)
		}
	}
	return errors.Join(errs...)
}

// recovered is logged at the end of a fault. Half of a pair that was never live, or one of
// two that have one id, is put right by removing it.
const recovered = "certificate files are good again"

// record keeps and logs what became of f.
func (w *Watcher) record(st *state, f *finding) {
	if f.err != nil {
		if st.faults.first(f.fault()) {
			w.logger.Error("certificate files are bad; what is live stays live", "error", f.err)
		}
		return
	}
	if f.version != nil {
		for _, warning := range f.version.warnings {
			if st.warnings.first(warning) {
				w.logger.Warn(warning)
			}
		}
		if !st.live || st.identity != f.version.identity {
			w.logger.Info(f.version.message, append(f.version.attrs, "from", f.item.String())...)
		}
		st.identity = f.version.identity
	}
	st.live, st.content = true, f.content
	if st.faults.any() {
		w.logger.Info(recovered, "from", f.item.String())
		st.faults = once{}
	}
}
