// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn"
)

// maxEntries bounds a directory: a wrong one, such as a spool, must not fill the memory.
const maxEntries = 100_000

// Directory keeps all pairs that lie in dir in store. Each is in one of these forms,
// and NAME is its id:
//
//	NAME.crt            NAME.key             cert-manager, Kubernetes' tls.crt
//	NAME-cert.pem       NAME-key.pem
//	NAME.pem            NAME-key.pem         mkcert
//	NAME.pem                                 chain and key in one file, as for HAProxy
//	NAME/tls.crt        NAME/tls.key         a Kubernetes secret mounted at NAME
//	NAME/fullchain.pem  NAME/privkey.pem     certbot's directory live
//
// Not looked at are names that begin with a dot, files with other endings, folders
// without any of those files, and ca.crt and ca.pem if there is no key beside them.
// Symbolic links are followed. Half of a pair, and a NAME in two forms, are faults.
//
// A pair that is added later is taken in. One whose files go away stays in the store,
// and that is logged: files can be away by mistake, and a server without its
// certificate is the worse mistake. To have it no longer, remove first its files, then
// its id from the store. A directory without any pair is a fault. It may have
// 100,000 entries. All its pairs are read at each look, at some 40 µs each, so give
// more than some thousands a longer [Options].Interval.
func Directory(store *keyturn.Store, dir string) Source { return &directory{store, dir} }

type directory struct {
	store *keyturn.Store
	dir   string
}

func (d *directory) String() string { return "directory " + d.dir }

// items returns a pair for each id, and for an id in two forms a fault; and all folders,
// since those that are empty may get a pair later.
func (d *directory) items() ([]item, []string, error) {
	folders := []string{d.dir}
	entries, err := list(d.dir)
	if err != nil {
		return nil, folders, err
	}
	files := make(map[string][]string) // endings by id
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		path := filepath.Join(d.dir, name)
		folder := isDir(path, e)
		if folder {
			folders = append(folders, path)
		}
		if id, ending, ok := split(name); ok {
			files[id] = append(files[id], ending)
		} else if folder {
			files[name] = append(files[name], "/")
		}
	}
	var all []item
	for id, endings := range files {
		switch pairs := d.pairs(id, endings); len(pairs) {
		case 0:
		case 1:
			all = append(all, pairs[0])
		default:
			all = append(all, &broken{
				of: d, text: fmt.Sprintf("pair %.100q of %s", id, d),
				err: fmt.Errorf("%s and %s have one id; remove one or rename it", pairs[0], pairs[1]),
			})
		}
	}
	if len(all) == 0 {
		return nil, folders, errors.New("no certificate with its key is in it; is it the right one, and is it mounted?")
	}
	slices.SortFunc(all, func(a, b item) int { return strings.Compare(a.String(), b.String()) })
	return all, folders, nil
}

// endings of files, the longer before those that they end in.
var endings = [...]string{"-cert.pem", "-key.pem", ".pem", ".crt", ".key"}

func split(name string) (id, ending string, ok bool) {
	for _, ending := range endings {
		if id, ok := strings.CutSuffix(name, ending); ok && id != "" {
			return id, ending, true
		}
	}
	return "", "", false
}

// pairs returns the pairs that the files of an id are, also those of which a half is
// missing: reading them says which.
func (d *directory) pairs(id string, endings []string) (pairs []*pair) {
	add := func(cert, key string) {
		base := filepath.Join(d.dir, id)
		pairs = append(pairs, &pair{d.store, id, base + cert, base + key})
	}
	has := func(ending string) bool { return slices.Contains(endings, ending) }
	if id == "ca" && !slices.ContainsFunc(endings, func(e string) bool { return e != ".crt" && e != ".pem" }) {
		return nil
	}
	if has(".crt") || has(".key") {
		add(".crt", ".key")
	}
	switch cert, key, both := has("-cert.pem"), has("-key.pem"), has(".pem"); {
	case cert && both:
		add("-cert.pem", "-key.pem")
		add(".pem", ".pem")
	case cert:
		add("-cert.pem", "-key.pem")
	case key:
		add(".pem", "-key.pem")
	case both:
		add(".pem", ".pem")
	}
	if has("/") {
		for _, names := range [...][2]string{{"/tls.crt", "/tls.key"}, {"/fullchain.pem", "/privkey.pem"}} {
			base := filepath.Join(d.dir, id)
			_, certErr := os.Lstat(base + names[0])
			_, keyErr := os.Lstat(base + names[1])
			if certErr == nil || keyErr == nil {
				add(names[0], names[1])
			}
		}
	}
	return pairs
}

// list returns the entries of a directory.
func list(dir string) ([]fs.DirEntry, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(maxEntries + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("%s has more than %d entries; is it the right one?", dir, maxEntries)
	}
	return entries, nil
}

// isDir follows links, unlike e.
func isDir(path string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
