// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

//go:embed static
var staticFiles embed.FS

var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"anchor":    anchor,
	"clock":     clock,
	"count":     count,
	"countdown": countdown,
	"day":       day,
	"groups":    groups,
	"machine":   machine,
	"name":      name,
	"percent":   percent,
	"short":     short,
}).Parse(pageSource))

const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// newHandler returns [Edge.Handler].
func (e *Edge) newHandler() http.Handler {
	routes := map[string]http.HandlerFunc{
		"/":       e.index,
		"/state":  e.stateJSON,
		"/events": e.events,
	}
	entries, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		panic(err) // it is in the binary
	}
	for _, entry := range entries {
		routes["/"+entry.Name()] = static(entry.Name())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if !e.allowed(r.Host) {
			refuse(w, http.StatusForbidden, fmt.Sprintf("This page is for the machine it runs on: ask for it as localhost "+
				"or a loopback address, not as %.100q.", r.Host))
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "There is nothing to change here: only GET and HEAD are answered.")
			return
		}
		route, ok := routes[r.URL.Path]
		if !ok {
			refuse(w, http.StatusNotFound, "There is nothing here. The page is at /.")
			return
		}
		route(w, r)
	})
}

// refuse answers with a status and a sentence.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, why)
}

// allowed reports whether the page may be asked for under the Host host.
func (e *Edge) allowed(host string) bool {
	name, ok := hostname(host)
	if !ok {
		return false
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" && addr.IsLoopback() {
		return true
	}
	return name == "localhost" || e.hosts[name]
}

// hostname returns the name or address in host, which may have a port, in lower case
// and without brackets and the dot of the root.
func hostname(host string) (string, bool) {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", false
		}
		name = h
	} else if in, ok := strings.CutPrefix(host, "["); ok {
		if name, ok = strings.CutSuffix(in, "]"); !ok {
			return "", false
		}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name, name != ""
}

// A view is what page.html shows.
type view struct {
	update
	Large     card // blank if there is none
	Small     []card
	Hidden    int    // how many certificates there are beyond those
	Via       string // what the page came over
	Blank     card   // for the script to make more from
	BlankTurn shownTurn
}

// A card is a certificate at a time.
type card struct {
	shown
	Now time.Time
}

func (e *Edge) index(w http.ResponseWriter, r *http.Request) {
	v := view{update: e.state(), Via: via(r)}
	for i, c := range v.Certificates {
		if i == 0 {
			v.Large = card{c, v.Now}
		} else {
			v.Small = append(v.Small, card{c, v.Now})
		}
	}
	v.Hidden = v.Count - len(v.Certificates)
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		e.logger.Error("cannot render the page of the edge", "error", err)
		refuse(w, http.StatusInternalServerError, "The page cannot be shown, see the log.")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

func (e *Edge) stateJSON(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(e.state())
}

// static serves an embedded file, which is asked for again only if it has changed.
func static(name string) http.HandlerFunc {
	content, err := staticFiles.ReadFile(path.Join("static", name))
	if err != nil {
		panic(err) // it is in the binary
	}
	// Not from the machine's table of types, which may not know them.
	kind := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}[path.Ext(name)]
	tag := fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(content))[:16])
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Content-Type", kind)
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}

// via says what r came over.
func via(r *http.Request) string {
	if r.TLS == nil {
		return "plain " + strings.TrimSuffix(r.Proto, ".0")
	}
	return strings.TrimSuffix(r.Proto, ".0") + " and " + tls.VersionName(r.TLS.Version)
}

// clock and day are for people, in the zone of this machine, which is that of its
// browsers; machine is for scripts.
func clock(t time.Time) string { return written(t, "15:04:05") }

func day(t time.Time) string { return written(t, "2006-01-02 15:04:05") }

func machine(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func written(t time.Time, layout string) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format(layout)
}

// count is n with its thousands apart.
func count(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// name is the name that a certificate goes by where there is room for one.
func name(c Certificate) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return c.Names[0]
}

// short is the beginning of a serial number, enough to tell two apart.
func short(serial string) string {
	switch {
	case serial == "":
		return "–"
	case len(serial) > 12:
		return serial[:8] + "…"
	}
	return serial
}

// groups cuts a long number into pieces that the eye can hold.
func groups(hex string) []string {
	const size = 8
	var out []string
	for ; len(hex) > size; hex = hex[size:] {
		out = append(out, hex[:size])
	}
	return append(out, hex)
}

// A phrase is a countdown: "turns in", "0:42".
type phrase struct {
	Before, Time string
	Over         bool // the certificate has expired
}

// countdown says what comes next for c. The script says the same.
func countdown(c Certificate, now time.Time) phrase {
	switch {
	case c.ID == "":
		return phrase{}
	case now.Before(c.NotBefore):
		return phrase{"valid in", remaining(c.NotBefore.Sub(now)), false}
	case !now.Before(c.NotAfter):
		return phrase{"expired", remaining(now.Sub(c.NotAfter)) + " ago", true}
	case c.Next.IsZero() || c.Next.After(c.NotAfter):
		return phrase{"expires in", remaining(c.NotAfter.Sub(now)), false}
	case !now.Before(c.Next):
		return phrase{"turns", "now", false}
	}
	return phrase{"turns in", remaining(c.Next.Sub(now)), false}
}

// remaining is d rounded up to a second, or the days in it.
func remaining(d time.Duration) string {
	s := int64((d + time.Second - 1) / time.Second)
	switch {
	case s >= 48*3600:
		return fmt.Sprintf("%d days", s/(24*3600))
	case s >= 3600:
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// percent is where t stands in the life of c, from 0 to 100.
func percent(c Certificate, t time.Time) string {
	life := c.NotAfter.Sub(c.NotBefore)
	if life <= 0 || t.IsZero() {
		return "0"
	}
	part := float64(t.Sub(c.NotBefore)) / float64(life)
	return strconv.FormatFloat(100*min(max(part, 0), 1), 'f', 2, 64)
}

// anchor is the end at which the text under the mark of c is held, so that all of it
// is seen.
func anchor(c Certificate) string {
	at, _ := strconv.ParseFloat(percent(c, c.Next), 64)
	switch {
	case at < 15:
		return "start"
	case at > 85:
		return "end"
	}
	return "middle"
}
