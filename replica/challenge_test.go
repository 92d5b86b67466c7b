// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver/tlsalpn01"
)

// challengeFor is one that is answered for an hour.
func challengeFor(kind, name, order string) event.Challenge {
	token := strings.Repeat("t", 30) + order
	return event.Challenge{Type: kind, Name: name, Token: token, Authorization: token + ".thumbprint", Expires: time.Now().Add(time.Hour)}
}

func challengesOf(list ...event.Challenge) *event.Challenges {
	return &event.Challenges{Group: "default", List: list}
}

// challenges makes the list what the group answers.
func (w *world) challenges(list ...event.Challenge) {
	w.t.Helper()
	w.put(event.ChallengesKey("default"), w.sign(challengesOf(list...)))
}

// fetch asks a replica as a CA does by HTTP; "" where it has no answer.
func fetch(r *replica.Replica, token string) string {
	w := httptest.NewRecorder()
	r.HTTPHandler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/acme-challenge/"+token, nil))
	if w.Code != http.StatusOK {
		return ""
	}
	return w.Body.String()
}

// shows reports whether a replica has an answer by TLS.
func shows(r *replica.Replica, name string) *tls.Certificate {
	cert, err := r.Store().GetCertificate(&tls.ClientHelloInfo{ServerName: tlsalpn01.ServerName(name), SupportedProtos: []string{tlsalpn01.Protocol}})
	if err != nil {
		return nil
	}
	return cert
}

// answering waits until a replica answers so many challenges.
func answering(t testing.TB, r *replica.Replica, n int) {
	t.Helper()
	for r.Status().Challenges != n {
		if t.Context().Err() != nil {
			t.Fatalf("%d challenges are answered, want %d", r.Status().Challenges, n)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestChallengesAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		served := w.publish(id1, 1, "a.example")
		one, two, three := challengeFor(event.ChallengeHTTP01, "a.example", "1"), challengeFor(event.ChallengeTLSALPN01, "a.example", "2"), challengeFor(event.ChallengeTLSALPN01, "192.0.2.1", "3")
		two.Expires = time.Now().Add(time.Minute)
		w.challenges(one, two)
		r := w.open(w.config()) // it was asked before the start
		synctest.Wait()
		if fetch(r, one.Token) != one.Authorization || shows(r, "a.example") == nil || r.Status().Challenges != 2 {
			t.Fatalf("%+v", r.Status())
		}
		wantServed(t, r, "a.example", served)
		if fetch(r, two.Token) != "" || fetch(r, one.Token+"x") != "" {
			t.Error("answered by HTTP what is to be answered by TLS")
		}
		first := shows(r, "a.example")
		w.challenges(one, two, three)
		synctest.Wait()
		if shows(r, "192.0.2.1") == nil || shows(r, "a.example") != first {
			t.Error("the answers that were there were made anew, or there is none more")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if shows(r, "a.example") != nil || shows(r, "192.0.2.1") == nil || r.Status().Challenges != 2 {
			t.Errorf("what has expired is answered: %+v", r.Status())
		}
		w.challenges()
		synctest.Wait()
		if fetch(r, one.Token) != "" || shows(r, "192.0.2.1") != nil || r.Status().Challenges != 0 {
			t.Errorf("what was taken back is answered: %+v", r.Status())
		}
		w.challenges(one)
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if fetch(r, one.Token) != "" {
			t.Error("answered after the end, when nobody can take it back")
		}
		wantServed(t, r, "a.example", served)
	})
}

// What no manager signed, or signed for another group, changes nothing.
func TestChallengesThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, evil := challengeFor(event.ChallengeHTTP01, "a.example", "1"), challengeFor(event.ChallengeHTTP01, "evil.example", "2")
		w.challenges(one)
		r := w.open(w.config())
		synctest.Wait()
		stranger, _ := seal.GenerateSigningKey()
		strangers, _ := event.Sign(stranger, "default", time.Now(), challengesOf(evil))
		otherTenants, _ := event.Sign(w.signer, "other", time.Now(), challengesOf(evil))
		tampered := w.sign(challengesOf(evil))
		tampered[len(tampered)/2] ^= 1
		for _, c := range []struct {
			what   string
			reason replica.Reason
			data   []byte
		}{
			{"a stranger's", replica.RefusedSigner, strangers},
			{"another tenant's", replica.RefusedMoved, otherTenants},
			{"another group's", replica.RefusedMoved, w.sign(&event.Challenges{Group: "other", List: []event.Challenge{evil}})},
			{"another key's", replica.RefusedMoved, w.sign(&event.Removal{Group: "default", ID: id1, Version: event.Version{Epoch: 1, Generation: 1}})},
			{"a changed byte", replica.RefusedSignature, tampered},
			{"junk", replica.RefusedMalformed, []byte("junk")},
		} {
			before := r.Status().Refused[c.reason]
			w.put(event.ChallengesKey("default"), c.data)
			synctest.Wait()
			if n := r.Status().Refused[c.reason] - before; n != 1 {
				t.Errorf("%s: refused %d times as %s: %v", c.what, n, c.reason, r.Status().Refused)
			}
			if fetch(r, one.Token) != one.Authorization || fetch(r, evil.Token) != "" || r.Status().Challenges != 1 {
				t.Errorf("%s: it counts: %+v", c.what, r.Status())
			}
		}
	})
}

// What a new manager signs may come before the list that has it.
func TestChallengesOfANewManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.signer, signingKey(t)
		l := &line{f: f}
		l.set(a, a)
		dir, _ := f.joined()
		r := f.open(inDir(dir))
		f.signer = b
		one := challengeFor(event.ChallengeHTTP01, "a.example", "1")
		f.challenges(one)
		synctest.Wait()
		if fetch(r, one.Token) != "" {
			t.Fatal("a stranger's challenge is answered")
		}
		l.set(a, a, b)
		synctest.Wait()
		if fetch(r, one.Token) != one.Authorization {
			t.Error("a manager's challenge is not answered")
		}
	})
}

func TestChallengesInReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		dir, m := f.joined()
		r := f.open(inDir(dir))
		time.Sleep(2 * time.Second)
		if got := f.receipt(m)[0].Challenges; got != "" {
			t.Errorf("before there were any: %q", got)
		}
		for range 2 {
			f.challenges(challengeFor(event.ChallengeHTTP01, "a.example", "1"))
			time.Sleep(2 * time.Second)
			if got, want := f.receipt(m)[0].Challenges, f.at[event.ChallengesKey("default")].String(); got != want {
				t.Errorf("the receipt says %q, want %q", got, want)
			}
			if err := r.Close(); err != nil { // and after a restart it answers again
				t.Fatal(err)
			}
			r = f.open(inDir(dir))
			time.Sleep(2 * time.Second)
			if r.Status().Challenges != 1 {
				t.Errorf("%+v", r.Status())
			}
		}
	})
}

// A denying bus does not let challenges be followed, as older credentials do not.
type denying struct {
	bus.Boarder
	tried atomic.Int64
}

func (d *denying) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	if scope != event.ChallengesKey("default") {
		return d.Boarder.Follow(ctx, scope, from)
	}
	d.tried.Add(1)
	return func(yield func(bus.Update, error) bool) {
		yield(bus.Update{}, errors.New("these credentials do not allow it"))
	}
}

func TestWithoutTheRightToFollowChallenges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lockedBuffer)
		w := newWorld(t)
		bus := &denying{Boarder: w.log}
		c := w.config()
		c.Log, c.Logger = bus, slog.New(slog.NewTextHandler(log, nil))
		r := w.open(c)
		time.Sleep(time.Hour)
		leaf := w.publish(id1, 1, "a.example")
		synctest.Wait()
		wantServed(t, r, "a.example", leaf)
		if s := r.Status(); !s.Following || s.LastError != nil {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "join this host anew"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log)
		}
		if n := bus.tried.Load(); n < 5 || n > 20 {
			t.Errorf("tried %d times in an hour", n)
		}
	})
}

type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// reads counts what is asked of a bus.
type reads struct {
	bus.Boarder
	n atomic.Int64
}

func (b *reads) Get(ctx context.Context, key string) (bus.Entry, error) {
	b.n.Add(1)
	return b.Boarder.Get(ctx, key)
}

func (b *reads) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	b.n.Add(1)
	return b.Boarder.Append(ctx, key, after, data)
}

func (b *reads) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	b.n.Add(1)
	return b.Boarder.Follow(ctx, scope, from)
}

// TestFloodOfUnknownNames: 100,000 names that nobody knows, asked for by clients and by
// what poses as a CA, cost no memory and ask nobody, while known names are served.
func TestFloodOfUnknownNames(t *testing.T) {
	w := newWorld(t)
	leaf := w.publish(id1, 1, "known.example")
	one := challengeFor(event.ChallengeTLSALPN01, "challenged.example", "1")
	w.challenges(one, challengeFor(event.ChallengeHTTP01, "challenged.example", "2"))
	asked := &reads{Boarder: w.log}
	c := w.config()
	c.Log = asked
	r := w.open(c)
	answering(t, r, 2)
	before, calls := heap(), asked.n.Load()
	server := r.Store().ServerConfig()
	const names = 100_000
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < names; i += 4 {
				name := fmt.Sprintf("unknown-%d.example", i)
				for _, protocols := range [][]string{nil, {"h2", "http/1.1"}, {tlsalpn01.Protocol}} {
					hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols}
					if config, err := server.GetConfigForClient(hello); config != nil || err != nil {
						t.Errorf("%s: a config of its own, %v", name, err)
					}
					if _, err := r.Store().GetCertificate(hello); err == nil {
						t.Errorf("%s is served", name)
					}
				}
				if i%1000 == 0 {
					wantServed(t, r, "known.example", leaf)
					if shows(r, "challenged.example") == nil {
						t.Error("the challenge is not answered")
					}
				}
			}
		})
	}
	wg.Wait()
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if n := asked.n.Load(); n != calls {
		t.Errorf("the bus was asked %d times", n-calls)
	}
}

// TestFloodOfHandshakes is the same by whole connections, fewer of them.
func TestFloodOfHandshakes(t *testing.T) {
	w := newWorld(t)
	leaf := w.publish(id1, 1, "known.example")
	w.challenges(challengeFor(event.ChallengeTLSALPN01, "challenged.example", "1"))
	r := w.open(w.config())
	answering(t, r, 1)
	l, err := tls.Listen("tcp", "127.0.0.1:0", r.Store().ServerConfig())
	if err != nil {
		t.Fatal(err)
	}
	site := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "site") })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = site.Serve(l) })
	defer wg.Wait()
	defer site.Close()
	before := heap()
	dial := func(name string, protocols ...string) (*tls.ConnectionState, error) {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		s := conn.ConnectionState()
		return &s, nil
	}
	for i := range 2000 {
		name := fmt.Sprintf("unknown-%d.example", i)
		if s, err := dial(name, tlsalpn01.Protocol); err == nil {
			t.Fatalf("%s: %+v", name, s)
		}
		if s, err := dial(name); err == nil {
			t.Fatalf("%s: %+v", name, s)
		}
		if i%100 == 0 {
			if s, err := dial("known.example", "http/1.1"); err != nil || !s.PeerCertificates[0].Equal(leaf) {
				t.Fatal(err, s)
			}
			if s, err := dial("challenged.example", tlsalpn01.Protocol); err != nil || s.NegotiatedProtocol != tlsalpn01.Protocol {
				t.Fatal(err, s)
			}
		}
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
