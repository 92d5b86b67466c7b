// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

func TestAJoinedDirectoryIsAllThatAReplicaNeeds(t *testing.T) {
	f := newFleet(t)
	leaf := f.publish(id1, 1, "a.example")
	dir, m := f.joined()

	r := f.open(inDir(dir))
	wantServed(t, r, "a.example", leaf)
	ms, err := replica.ReadMembership(dir)
	if err != nil || *ms != (replica.Membership{ID: m.ID, Name: "host-1", Tenant: "default", Group: "default", Serial: 1}) {
		t.Fatalf("%+v %v", ms, err)
	}
	if creds, err := os.ReadFile(filepath.Join(dir, bus.ReplicaCreds)); err != nil || string(creds) != "grant-of-member "+strings.TrimPrefix(m.User, "user-") {
		t.Errorf("credentials %q, of %s: %v", creds, m.User, err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if mode := fi.Mode().Perm(); d.IsDir() && mode != 0o700 || !d.IsDir() && mode != 0o600 && d.Name() != replica.ManagersFile {
			t.Errorf("%s has mode %04o", path, mode)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	// Without a bus the snapshot is enough, as ever.
	if err := os.Remove(filepath.Join(dir, bus.URLFile)); err != nil {
		t.Fatal(err)
	}
	r = f.open(inDir(dir))
	wantServed(t, r, "a.example", leaf)

	for _, c := range []replica.Config{{Dir: dir, Group: "other"}, {Dir: dir, Tenant: "other"}} {
		if _, err := replica.Open(t.Context(), c); contains(err, `group "default" of tenant "default"`) != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := replica.Join(t.Context(), replica.JoinConfig{Token: f.token(), Dir: dir}); !errors.Is(err, replica.ErrJoined) || contains(err, m.ID) != nil {
		t.Errorf("joined twice: %v", err)
	}
}

func TestJoinSaysWhatItWaitsFor(t *testing.T) {
	f := newFleet(t)
	token, dir := f.token(), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var said []string
	c := replica.JoinConfig{Token: token, Dir: dir, Logger: quiet, Progress: func(s string) {
		said = append(said, s)
		if strings.Contains(s, "no manager has taken") {
			stop()
		}
	}}
	_, err := replica.Join(ctx, c)
	if e := contains(err, "no manager has taken the request", "keyturn serve"); e != nil || !errors.Is(err, context.Canceled) {
		t.Error(e, err)
	}
	// The request is there; a manager takes it, but holds no key.
	m := &event.Member{JoinRequest: *f.requested(token), Grant: "grant-of-member", Joined: time.Now()}
	f.member(m)
	ctx, stop = context.WithCancel(t.Context())
	c.Progress = func(s string) {
		if strings.Contains(s, "keyturn group grant default") {
			stop()
		}
	}
	_, err = replica.Join(ctx, c)
	if e := contains(err, "no manager that holds the key of group default", "keyturn group grant default"); e != nil {
		t.Error(e)
	}
	// From here on the token's time does not matter.
	token.Expires = time.Now().Add(-time.Second)
	f.member(m, f.groupKey)
	if _, err := replica.Join(t.Context(), c); err != nil {
		t.Error(err)
	}
	if len(said) == 0 || !strings.Contains(said[0], f.url) {
		t.Errorf("progress %q", said)
	}
}

func TestATokenExpiresWhileNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		start := time.Now()
		_, err := replica.Join(t.Context(), replica.JoinConfig{Token: f.token(), Dir: t.TempDir(), Logger: quiet})
		if e := contains(err, "no manager has taken the request"); e != nil || !errors.Is(err, replica.ErrTokenExpired) {
			t.Error(e, err)
		}
		if d := time.Since(start); d != 15*time.Minute {
			t.Errorf("after %s", d)
		}
	})
}

// A shakyLog fails several times before it answers.
type shakyLog struct {
	bus.Boarder
	failures atomic.Int32
}

func (l *shakyLog) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	p, err := l.Boarder.Append(ctx, key, after, data)
	if l.failures.Add(-1) >= 0 {
		return bus.Position{}, errors.New("the answer was lost")
	}
	return p, err
}

func TestAJoinWhoseRequestIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		shaky := &shakyLog{Boarder: f.log}
		shaky.failures.Store(3)
		token := f.token()
		token.URLs = []string{buses.add(shaky)}
		go func() {
			f.member(&event.Member{JoinRequest: *f.requested(token), Joined: time.Now()}, f.groupKey)
		}()
		said := ""
		c := replica.JoinConfig{Token: token, Dir: t.TempDir(), Logger: quiet, Progress: func(s string) { said += s + "\n" }}
		if _, err := replica.Join(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said, "cannot be used; trying on: the answer was lost") {
			t.Errorf("said %q", said)
		}
	})
}

func TestWhatIsNoJoin(t *testing.T) {
	f := newFleet(t)
	join := func(token *event.Token, dir string) error {
		_, err := replica.Join(t.Context(), replica.JoinConfig{Token: token, Dir: dir, Logger: quiet})
		return err
	}
	expired := f.token()
	expired.Expires = time.Now().Add(-time.Minute)
	if err := join(expired, t.TempDir()); !errors.Is(err, replica.ErrTokenExpired) {
		t.Errorf("expired: %v", err)
	}

	used := f.token()
	f.put(event.JoinKey(used.ID), []byte("somebody else's"))
	if err := join(used, t.TempDir()); !errors.Is(err, replica.ErrTokenUsed) {
		t.Errorf("used: %v", err)
	}

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "identity.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := join(f.token(), dir); contains(err, "identity.pem", "something else's") != nil {
		t.Errorf("a manager's directory: %v", err)
	}
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := join(f.token(), dir); contains(err, dir, "0777", "chmod") != nil {
		t.Errorf("a directory that others can write to: %v", err)
	}

	nowhere := f.token()
	nowhere.URLs = []string{"unknown://x"}
	if err := join(nowhere, t.TempDir()); contains(err, "unknown://", "import") != nil {
		t.Errorf("an unknown engine: %v", err)
	}

	revoked, dir := f.token(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".host.pem.0123456789abcdef.tmp"), nil, 0o600); err != nil { // a write cut short
		t.Fatal(err)
	}
	go func() {
		f.member(&event.Member{JoinRequest: *f.requested(revoked), Joined: time.Now(), Revoked: time.Now()}, f.groupKey)
	}()
	if err := join(revoked, dir); contains(err, "was revoked", "new token") != nil {
		t.Errorf("revoked: %v", err)
	}
	// The same directory is good for another token.
	again := f.token()
	go func() {
		f.member(&event.Member{JoinRequest: *f.requested(again), Joined: time.Now()}, f.groupKey)
	}()
	if err := join(again, dir); err != nil {
		t.Error(err)
	}
}

func TestAnswersOfStrangersAreNotTaken(t *testing.T) {
	f := newFleet(t)
	token, dir := f.token(), t.TempDir()
	go func() {
		m := &event.Member{JoinRequest: *f.requested(token), Joined: time.Now()}
		mallory, _ := seal.GenerateKey()
		stranger, _ := seal.GenerateSigningKey()
		_ = m.Seal("default", []*seal.PrivateKey{mallory})
		data, _ := event.Sign(stranger, "default", time.Now(), m)
		f.put(event.MemberKey(m.Group, m.ID), data)
		f.member(m, f.groupKey)
	}()
	if _, err := replica.Join(t.Context(), replica.JoinConfig{Token: token, Dir: dir, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ReadPrivateKeyFile(replica.KeyFile(dir, "default"))
	if err != nil || len(keys) != 1 || !keys[0].Equal(f.groupKey) {
		t.Errorf("not the granted key: %v", err)
	}
}

// Every write of a join is made to fail once, by a directory that stands in its
// way; the same token completes afterwards.
func TestJoinCompletesAfterEveryWriteThatFailed(t *testing.T) {
	for _, c := range []struct {
		file string
		// grant says before which credentials the obstacle appears, "" from the
		// start on.
		grant string
		nth   int
	}{
		{replica.HostFile, "", 0},
		{bus.URLFile, "", 0},
		{bus.RootsFile, "", 0},
		{bus.ReplicaCreds, "", 0},
		{"join.request", "", 0},
		{"join.member", "grant-of-token", 1},
		{bus.ReplicaCreds, "grant-of-member", 1},
		{"groups/default.key", "grant-of-member", 1},
		{bus.ReplicaCreds, "grant-of-member", 2},
		{replica.ManagersFile, "grant-of-member", 2},
		{replica.MemberFile, "grant-of-member", 2},
	} {
		t.Run(strings.ReplaceAll(c.file, "/", "-")+" "+c.grant, func(t *testing.T) {
			f := newFleet(t)
			token, dir := f.token(), t.TempDir()
			token.Roots = [][]byte{[]byte("a root")}
			path := filepath.Join(dir, c.file)
			obstruct := func() {
				_ = os.RemoveAll(path)
				if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
					t.Error(err)
				}
			}
			if c.grant == "" {
				obstruct()
				if c.file != replica.HostFile {
					if err := seal.CreateIdentityFile(filepath.Join(dir, replica.HostFile), identity(t)); err != nil {
						t.Fatal(err)
					}
				}
			}
			n := 0
			buses.before(t, func(grant string) {
				if grant == c.grant {
					if n++; n == c.nth {
						obstruct()
					}
				}
			})
			answered := make(chan *event.Member, 1)
			go func() {
				m := &event.Member{JoinRequest: *f.requested(token), Grant: "grant-of-member", Joined: time.Now()}
				f.member(m)
				answered <- m
			}()
			ctx, stop := context.WithCancel(t.Context())
			config := replica.JoinConfig{Token: token, Dir: dir, Logger: quiet, Progress: func(s string) {
				if strings.Contains(s, "group grant") {
					f.member(<-answered, f.groupKey)
				}
			}}
			if _, err := replica.Join(ctx, config); err == nil {
				t.Fatal("joined, although a write failed")
			}
			stop()
			if _, err := replica.Open(t.Context(), inDir(dir)); err == nil {
				t.Fatal("half a join opens")
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if _, err := replica.Join(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			left, err := filepath.Glob(filepath.Join(dir, "join.*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
			leaf := f.publish(id1, 1, "a.example")
			wantServed(t, f.open(inDir(dir)), "a.example", leaf)
		})
	}
}

// A join that is ended at any moment that it tells of is completed by the next.
func TestJoinCompletesAfterEveryStop(t *testing.T) {
	f := newFleet(t)
	token, dir := f.token(), t.TempDir()
	answered := make(chan *event.Member, 1)
	go func() {
		m := &event.Member{JoinRequest: *f.requested(token), Grant: "grant-of-member", Joined: time.Now()}
		f.member(m)
		answered <- m
	}()
	heard := make(map[string]bool)
	for stops := 0; ; stops++ {
		ctx, stop := context.WithCancel(t.Context())
		_, err := replica.Join(ctx, replica.JoinConfig{Token: token, Dir: dir, Logger: quiet, Progress: func(s string) {
			if !heard[s] {
				heard[s] = true
				stop()
			} else if strings.Contains(s, "group grant") {
				f.member(<-answered, f.groupKey)
			}
		}})
		stop()
		if err == nil && stops >= 3 {
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("after %d stops: %v", stops, err)
		}
	}
}

func identity(t *testing.T) *seal.Identity {
	t.Helper()
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
