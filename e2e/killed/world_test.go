// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// A world is a tenant of its own, and what the test knows of it.
type world struct {
	t      testing.TB
	stage  *stage
	server *server
	tenant string
	dir    string
	m      *manager.Manager
	conn   bus.Conn
	kept   map[string]event.Version // by id, what must not be lost
	close  func()

	mu        sync.Mutex
	published map[string][]byte // guarded by mu; by id and version, the serial number
	problems  []error           // guarded by mu
}

// newWorld makes a data directory and a log, and lets close end both. A bare log is not
// begun.
func (s *stage) newWorld(t testing.TB, bare bool) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{t: t, stage: s, tenant: "t" + strconv.FormatInt(s.worlds.Add(1), 10), kept: make(map[string]event.Version), published: make(map[string][]byte)}
	w.dir = filepath.Join(s.dir, w.tenant)
	d, err := datadir.Open(w.dir, datadir.Production)
	if err != nil {
		t.Fatal(err)
	}
	var leave func()
	w.server, leave = s.enter(t)
	id, err := w.server.Create(ctx, w.tenant, "")
	must(t, err, d.SetURL(w.server.URL()), d.SetLogID(id), d.Close(),
		d.Creds(bus.ManagerCreds, func() ([]byte, error) { return w.server.ManagerCreds(w.tenant) }))
	if w.m, w.conn, err = open(ctx, w.dir, w.tenant, "the-test"); err != nil {
		t.Fatal(err)
	}
	if !bare {
		must(t, begin(ctx, w.m, w.dir, w.server.Secret(w.tenant), s.config(w.dir)))
	}
	watched := w.watch(ctx)
	w.close = sync.OnceFunc(func() {
		cancel()
		<-watched
		w.conn.Close()
		leave()
		_ = os.RemoveAll(w.dir) // memory, mostly
	})
	t.Cleanup(w.close)
	return w
}

// begin prepares a log as the first start of a manager does.
func begin(ctx context.Context, m *manager.Manager, dir string, secret []byte, config string) error {
	d := datadir.At(dir)
	url, err := d.URL()
	if err != nil {
		return err
	}
	keys, err := d.GroupKeys(manager.DefaultGroup)
	if err != nil {
		return err
	}
	if err := m.Init(ctx); err != nil {
		return err
	}
	if err := m.SetBusInfo(ctx, &event.BusInfo{URLs: []string{url}}, secret); err != nil {
		return err
	}
	if err := m.AddGroup(ctx, manager.DefaultGroup, keys[0].Public()); err != nil {
		return err
	}
	if _, _, err := m.ConfigText(ctx); errors.Is(err, manager.ErrNoConfig) {
		_, err = m.UpdateConfig(ctx, []byte(config), bus.Position{})
		return err
	} else if err != nil {
		return err
	}
	return nil
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// watch notes what is published for replicas until ctx ends, and the returned channel
// is closed: one certificate of each generation.
func (w *world) watch(ctx context.Context) (ended chan struct{}) {
	w.t.Helper()
	caught, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for u, err := range w.conn.Follow(ctx, "group", bus.Position{}) {
			if err != nil {
				return
			}
			if u.CaughtUp {
				close(caught)
				continue
			}
			if e, err := event.Trusted(w.tenant, u.Data); err == nil {
				w.see(e.Body)
			}
		}
	}()
	select {
	case <-caught:
	case <-time.After(patience):
		w.t.Fatal("the groups cannot be followed")
	}
	return ended
}

func (w *world) see(b event.Body) {
	c, ok := b.(*event.Certificate)
	if !ok {
		return
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	w.mu.Lock()
	defer w.mu.Unlock()
	key := c.ID + " " + c.Version.String()
	switch before := w.published[key]; {
	case err != nil:
		w.problems = append(w.problems, err)
	case before != nil && string(before) != string(leaf.SerialNumber.Bytes()):
		w.problems = append(w.problems, fmt.Errorf("%s: two certificates were published, serial numbers %x and %x", key, before, leaf.SerialNumber.Bytes()))
	default:
		w.published[key] = leaf.SerialNumber.Bytes()
	}
}

// make makes certificates, which must not be lost from then on.
func (w *world) make(names ...string) (list []*manager.Managed) {
	w.t.Helper()
	for _, name := range names {
		c, err := w.m.Make(w.t.Context(), manager.Request{Names: []string{name}, Issuer: issuerOf(name)})
		if err != nil {
			w.t.Fatal(err)
		}
		w.kept[c.ID] = c.Version
		list = append(list, c)
	}
	return list
}

// issuerOf returns the issuer that a name says: "a.pebble.example" is pebble's.
func issuerOf(name string) string {
	parts := strings.Split(name, ".")
	return parts[len(parts)-2]
}

// lasting returns what is wrong with what is there, after a kill: nothing is lost,
// and no key stands with a chain that is not its own. After the work is done, too,
// replicas have what managers have.
func (w *world) lasting(done bool) error {
	ctx := w.t.Context()
	list, err := w.m.List(ctx)
	errs := []error{err}
	found := make(map[string]bool)
	for _, c := range list {
		found[c.ID] = true
		if c.Version.Less(w.kept[c.ID]) {
			errs = append(errs, fmt.Errorf("%s is at %s, and was at %s", c.ID, c.Version, w.kept[c.ID]))
		}
		if err := w.whole(c, done); err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): %w", c.ID, c.Spec.Names[0], err))
		}
	}
	for id := range w.kept {
		if !found[id] {
			if c, err := w.m.Get(ctx, id); err != nil || !c.Removed || w.whole(c, done) != nil {
				errs = append(errs, fmt.Errorf("%s is lost: %v", id, err))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(append(errs, w.problems...)...)
}

// whole returns what is wrong with one certificate.
func (w *world) whole(c *manager.Managed, done bool) error {
	for i, r := range c.History {
		if r.Generation != uint64(i+1) {
			return fmt.Errorf("the %d. record is of generation %d", i+1, r.Generation)
		}
	}
	if c.Generation != uint64(len(c.History)) {
		return fmt.Errorf("generation %d has %d records", c.Generation, len(c.History))
	}
	entry, err := w.conn.Get(w.t.Context(), event.CertificateKey(c.Spec.Group, c.ID))
	switch {
	case errors.Is(err, bus.ErrNotFound) && (c.Generation == 0 || !done):
		return nil
	case err != nil:
		return err
	case done && string(entry.Data) != string(c.Current):
		return fmt.Errorf("generation %d does not stand there for replicas", c.Generation)
	}
	e, err := event.Trusted(w.tenant, entry.Data)
	if err != nil {
		return err
	}
	cert, ok := e.Body.(*event.Certificate)
	if !ok {
		return nil
	}
	keys, err := datadir.At(w.dir).GroupKeys(c.Spec.Group)
	if err != nil {
		return err
	}
	return fits(w.tenant, cert, keys)
}

// fits returns an error unless the certificate's private key is its own.
func fits(tenant string, c *event.Certificate, keys []*seal.PrivateKey) error {
	pkcs8, err := c.OpenKey(tenant, keys)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return err
	}
	return belongs(leaf, key)
}
