// SPDX-License-Identifier: Apache-2.0

package http01

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/solver"
)

// A Webroot answers challenges by files in a directory that an HTTP server serves as
// its root. It makes ".well-known/acme-challenge" there, with mode 0755, and each answer
// in it whole or not at all, with mode 0644, for as long as it is needed. What is a
// symbolic link out of the directory, below it, is refused.
//
// Dir must be set, and not be changed after first use. A Webroot must not be copied
// after first use.
type Webroot struct {
	Dir string

	mu   sync.Mutex
	uses map[string]int // guarded by mu; how many challenges wait for a token's file
}

var _ solver.Solver = (*Webroot)(nil)

// Solve implements solver.Solver.
func (w *Webroot) Solve(_ context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	if err := check(c); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(c); err != nil {
		return nil, fmt.Errorf("http-01: writing the answer for %s below %s: %w", c.Name, w.Dir, err)
	}
	if w.uses == nil {
		w.uses = make(map[string]int)
	}
	w.uses[c.Token]++
	remove := sync.OnceValue(func() error { return w.release(c) })
	return func(context.Context) error { return remove() }, nil
}

// answers is the directory of the answers below Dir.
var answers = strings.Trim(Path, "/")

func (w *Webroot) write(c solver.Challenge) error {
	root, err := os.OpenRoot(w.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(answers, 0o755); err != nil {
		return err
	}
	temporary := path.Join(answers, ".keyturn-"+rand.Text())
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(c.KeyAuthorization)
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // whatever the umask: another user's program reads it
	if err == nil {
		err = root.Rename(temporary, path.Join(answers, c.Token))
	}
	if err != nil {
		return errors.Join(err, root.Remove(temporary))
	}
	return nil
}

// release removes the file when nothing waits for it any more.
func (w *Webroot) release(c solver.Challenge) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.uses[c.Token]--; w.uses[c.Token] > 0 {
		return nil
	}
	delete(w.uses, c.Token)
	root, err := os.OpenRoot(w.Dir)
	if err == nil {
		defer root.Close()
		err = root.Remove(path.Join(answers, c.Token))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("http-01: removing the answer for %s below %s: %w", c.Name, w.Dir, err)
	}
	return nil
}
