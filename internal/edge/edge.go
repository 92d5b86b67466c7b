// SPDX-License-Identifier: Apache-2.0

// Package edge is the HTTPS server of "keyturn serve --dev": it shows that the
// certificates of a live [keyturn.Store] turn under open connections.
//
// Make one with [New], tell it of certificates with [Edge.Set], [Edge.Turned] and
// [Edge.Removed], and serve with [Edge.ServeTLS]. The page that it shows has the
// certificate in use, when it turns next, how many handshakes were served and
// failed, and the last turns; it follows them while it is open, and shows the values
// of the moment where JavaScript is off. [Edge.Handler] is the same page for a plain
// HTTP server on loopback, where a browser shows it without a warning.
//
// Every handshake is made and counted here before net/http sees the connection, so
// that the numbers are those of the clients and not an estimate: whatever began and
// did not end in a connection has failed.
//
// It is not for others than the one who started it: it has no authentication, and
// answers under localhost, loopback addresses and the names of [Config.Hosts] only.
package edge

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn"
)

const (
	maxTurns = 20 // that the page shows
	maxCards = 60 // beside the large one
	maxNames = 20 // of a certificate
)

// A Certificate is a generation of a managed certificate, as the page shows it.
type Certificate struct {
	ID         string   `json:"id"`
	Names      []string `json:"names"`
	Issuer     string   `json:"issuer"`
	Epoch      uint64   `json:"epoch"`
	Generation uint64   `json:"generation"`

	Serial      string `json:"serial"`      // in hex
	Fingerprint string `json:"fingerprint"` // the SHA-256 of the leaf, in hex

	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Next      time.Time `json:"next,omitzero"` // when it turns next; zero if that is not known
}

// A Turn is a new generation that went live.
type Turn struct {
	Certificate           // the new generation
	OldSerial   string    `json:"oldSerial"` // empty if there was none before
	At          time.Time `json:"at"`

	// Handshakes and Failed were counted since the turn before, of whichever
	// certificate: the turns add up to what the edge has counted.
	Handshakes uint64 `json:"handshakes"`
	Failed     uint64 `json:"failed"`
}

// A Config says what an [Edge] serves.
type Config struct {
	// Store holds the certificates that ServeTLS serves. Nil is an empty one, from
	// which every handshake fails.
	Store *keyturn.Store

	// Hosts are the names under which the page may be asked for besides localhost and
	// the addresses of loopback, on any port. It is what keeps a web page elsewhere
	// from reading this one by pointing its own name here (DNS rebinding).
	Hosts []string

	// Logger gets failed handshakes, at debug. Nil discards.
	Logger *slog.Logger
}

// An Edge is the HTTPS server and its page. Make one with [New]. All methods may be
// called at once from any goroutine.
type Edge struct {
	logger *slog.Logger
	hosts  map[string]bool
	page   http.Handler
	tls    *tlsServer
	hub    *hub

	served, failed atomic.Uint64

	// mu guards what follows, and orders the events: what a listener is told is what
	// has changed since the state that it began with. It is taken before the hub's.
	mu            sync.Mutex
	certificates  map[string]shown
	main          string      // the id of the large one, empty if there is none
	turns         []shownTurn // the newest first
	atTurn        counts      // the counters at the latest turn
	countsPending *time.Timer // nil if none is
	closed        bool
}

type counts struct{ served, failed uint64 }

// shown is a certificate of which the page shows not more names than fit.
type shown struct {
	Certificate
	MoreNames int `json:"moreNames,omitzero"`
}

// shownTurn is a turn of which the page shows not more names than fit.
type shownTurn struct {
	Turn
	MoreNames int `json:"moreNames,omitzero"`
}

// New returns an edge that has no certificates to show and serves nothing yet.
func New(config Config) *Edge {
	e := &Edge{
		logger:       config.Logger,
		hosts:        make(map[string]bool),
		hub:          newHub(),
		certificates: make(map[string]shown),
	}
	if e.logger == nil {
		e.logger = slog.New(slog.DiscardHandler)
	}
	for _, host := range config.Hosts {
		if name, ok := hostname(host); ok {
			e.hosts[name] = true
		}
	}
	store := config.Store
	if store == nil {
		store = new(keyturn.Store)
	}
	e.page = e.newHandler()
	e.tls = newTLSServer(store.ServerConfig(), e.page, e.logger, e.count)
	return e
}

// Turned records that c is live in place of what had its id before, tells the open
// pages, and returns the turn. Call it once for each new generation, when handshakes
// get it.
func (e *Edge) Turned(c Certificate) Turn {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := counts{e.served.Load(), e.failed.Load()}
	turn := Turn{
		Certificate: c,
		OldSerial:   e.certificates[c.ID].Serial,
		At:          time.Now(),
		Handshakes:  now.served - e.atTurn.served,
		Failed:      now.failed - e.atTurn.failed,
	}
	e.atTurn = now

	s := e.setLocked(c)
	st := shownTurn{turn, s.MoreNames}
	st.Certificate = s.Certificate
	e.turns = slices.Insert(e.turns, 0, st)
	e.turns = e.turns[:min(len(e.turns), maxTurns)]
	e.publishLocked("turn", update{Turn: &st})
	return turn
}

// Set records c without a turn: what was live at the start already, or a Next that has
// changed.
func (e *Edge) Set(c Certificate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.setLocked(c)
	e.publishLocked("set", update{Certificate: &s})
}

// Removed records that the certificate of id is not served any more. Its turns stay.
func (e *Edge) Removed(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.certificates[id]; !ok {
		return
	}
	delete(e.certificates, id)
	e.chooseMainLocked()
	e.publishLocked("removed", update{ID: id})
}

// Handshakes returns how many handshakes were served and how many failed since the
// edge was made. A connection that was closed before it sent anything is neither.
func (e *Edge) Handshakes() (served, failed uint64) {
	return e.served.Load(), e.failed.Load()
}

// Handler returns the page: "/", its state as JSON under "/state", its changes as
// server-sent events under "/events", and its files. It checks methods and Host
// itself, and may be served by any server, any number of times. The events end with
// [Edge.Shutdown].
func (e *Edge) Handler() http.Handler { return e.page }

// ServeTLS accepts connections from l, makes their handshakes with the certificates
// of the store, and serves the page over HTTP/1.1 and HTTP/2. It closes l, and
// returns [http.ErrServerClosed] after Shutdown, otherwise the error of l. It may be
// called for several listeners.
func (e *Edge) ServeTLS(l net.Listener) error { return e.tls.serve(l) }

// Shutdown ends the events of all open pages, the Handler's own under other servers
// included, then handshakes in progress, idle connections, and, once they have their
// answer, the others. When ctx ends first, it closes what is left and returns the
// error of ctx. An Edge cannot be used again after it.
func (e *Edge) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	if e.countsPending != nil {
		e.countsPending.Stop()
		e.countsPending = nil
	}
	e.mu.Unlock()
	e.hub.close()
	err := e.tls.shutdown(ctx)
	return cmp.Or(err, e.hub.wait(ctx))
}

// count counts a handshake.
func (e *Edge) count(served bool) {
	if served {
		e.served.Add(1)
	} else {
		e.failed.Add(1)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.countsPending == nil && !e.closed && e.hub.listening() {
		e.countsPending = time.AfterFunc(countsEvery, e.publishCounts)
	}
}

func (e *Edge) publishCounts() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.countsPending = nil
	e.publishLocked("handshakes", update{})
}

// setLocked keeps c and returns what of it is shown. The caller holds mu.
func (e *Edge) setLocked(c Certificate) shown {
	s := shown{Certificate: c, MoreNames: max(0, len(c.Names)-maxNames)}
	s.Names = append([]string{}, c.Names[:min(len(c.Names), maxNames)]...)
	e.certificates[c.ID] = s
	e.chooseMainLocked()
	return s
}

// chooseMainLocked chooses the certificate that the page shows large: of those for
// localhost, which is where the page is, the newest, as that is in use. If there are
// none it is the one that was large, or else the first by name. The caller holds mu.
func (e *Edge) chooseMainLocked() {
	var best shown
	for _, c := range e.certificates {
		if slices.Contains(c.Names, "localhost") && (best.ID == "" || compareUse(c, best) < 0) {
			best = c
		}
	}
	if _, ok := e.certificates[e.main]; best.ID == "" && ok {
		return
	}
	if best.ID == "" {
		for _, c := range e.certificates {
			if best.ID == "" || compareNames(c, best) < 0 {
				best = c
			}
		}
	}
	e.main = best.ID
}

func compareUse(a, b shown) int {
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), strings.Compare(a.ID, b.ID))
}

func compareNames(a, b shown) int {
	return cmp.Or(slices.Compare(a.Names, b.Names), strings.Compare(a.ID, b.ID))
}

// An update is what a listener is told: the state at first, then what has changed.
type update struct {
	Now    time.Time `json:"now"`
	Main   string    `json:"main"`  // the id of the certificate to show large
	Count  int       `json:"count"` // of certificates, with those that are not shown
	Served uint64    `json:"served"`
	Failed uint64    `json:"failed"`

	// Of a state.
	Certificates []shown     `json:"certificates,omitzero"` // the large one first
	Turns        []shownTurn `json:"turns,omitzero"`        // the newest first

	Turn        *shownTurn `json:"turn,omitzero"`
	Certificate *shown     `json:"certificate,omitzero"`
	ID          string     `json:"id,omitzero"` // of a removal
}

// fillLocked adds to u what every update has. The caller holds mu.
func (e *Edge) fillLocked(u update) update {
	u.Now = time.Now()
	u.Main, u.Count = e.main, len(e.certificates)
	u.Served, u.Failed = e.served.Load(), e.failed.Load()
	return u
}

// stateLocked returns all that the page shows. The caller holds mu.
func (e *Edge) stateLocked() update {
	rest := make([]shown, 0, len(e.certificates))
	for id, c := range e.certificates {
		if id != e.main {
			rest = append(rest, c)
		}
	}
	slices.SortFunc(rest, compareNames)
	rest = rest[:min(len(rest), maxCards)]
	if c, ok := e.certificates[e.main]; ok {
		rest = slices.Insert(rest, 0, c)
	}
	return e.fillLocked(update{Certificates: rest, Turns: append([]shownTurn{}, e.turns...)})
}

// state returns all that the page shows.
func (e *Edge) state() update {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stateLocked()
}

// publishLocked tells the listeners. The caller holds mu.
func (e *Edge) publishLocked(event string, u update) {
	if e.hub.listening() {
		e.hub.publish(message(event, e.fillLocked(u)))
	}
}

// listen returns a new listener and the state that its events continue, or an error
// if there are too many.
func (e *Edge) listen() (*listener, []byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l, err := e.hub.add()
	if err != nil {
		return nil, nil, err
	}
	return l, message("state", e.stateLocked()), nil
}
