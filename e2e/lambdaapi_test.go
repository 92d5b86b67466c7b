// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/dynamolocal"
	"github.com/keyturn/keyturn/internal/race"
)

// roleSecret is the secret key of the function's role.
const roleSecret = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"

// A function is keyturn as AWS Lambda runs it. Lambda is a service of other
// people's: a server of the test speaks its Runtime API, as it is documented.
type function struct {
	t       *testing.T
	process *process
	tmp     string // the only directory that it can write to
	events  chan string
	answers chan answer
}

// An answer is what the function reports, of an event or of its start.
type answer struct{ path, body string }

// function starts keyturn with variables alone: there is no home directory.
func (f *tableFleet) function(t *testing.T, variables ...string) *function {
	t.Helper()
	fn := &function{t: t, tmp: t.TempDir(), events: make(chan string), answers: make(chan answer, 8)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Lambda-Extension-Identifier", "one")
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	id := 0 // one at a time is asked for
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case event := <-fn.events:
			id++
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprintf("id-%d", id))
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(patience).UnixMilli(), 10))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:keyturn")
			_, _ = io.WriteString(w, event)
		}
	})
	mux.HandleFunc("POST /2018-06-01/runtime/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the process ended over it
		}
		fn.answers <- answer{strings.TrimPrefix(r.URL.Path, "/2018-06-01/runtime/"), string(body)}
		w.WriteHeader(http.StatusAccepted)
	})
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)
	s := &sandbox{t: t, env: []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(), "TMPDIR=" + fn.tmp,
		"AWS_REGION=" + dynamolocal.Region, "AWS_ENDPOINT_URL_DYNAMODB=" + f.server.Endpoint,
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=" + roleSecret,
	}}
	if race.Enabled {
		s.env = append(s.env, "GORACE=atexit_sleep_ms=0")
	}
	s.env = append(s.env, variables...)
	fn.process = s.start(keyturn)
	return fn
}

// next is what the function reports next.
func (fn *function) next() answer {
	fn.t.Helper()
	select {
	case a := <-fn.answers:
		return a
	case <-fn.process.done:
		fn.t.Fatalf("the function ended with code %d: %s", fn.process.code, tail(fn.process.err.String()))
	case <-time.After(2 * patience):
		fn.t.Fatalf("the function reports nothing: %s", tail(fn.process.err.String()))
	}
	return answer{}
}

// A passRow is what a pass says of a certificate.
type passRow struct {
	ID          string
	Generation  uint64
	Left, Error string
}

// pass hands an event over, which has to succeed, and returns what was renewed.
// Whatever lies on the disk meanwhile is seen.
func (fn *function) pass(event string) (renewed []passRow, left int) {
	fn.t.Helper()
	seen := fn.watch()
	fn.events <- event
	a := fn.next()
	files := seen()
	if len(files) == 0 {
		fn.t.Error("nothing was written: what is written is not seen")
	}
	for name, text := range files {
		if strings.TrimSpace(text) != tableURL {
			fn.t.Errorf("%s was written: %.40q", name, text)
		}
	}
	var rows []passRow
	if err := json.Unmarshal([]byte(a.body), &rows); err != nil || !strings.HasSuffix(a.path, "/response") {
		fn.t.Fatalf("%s of %s: %v: %s\n%s", a.path, event, err, a.body, tail(fn.process.err.String()))
	}
	for _, r := range rows {
		switch {
		case r.Error != "":
			fn.t.Errorf("%s: %s", r.ID, r.Error)
		case r.Left != "":
			left++
		default:
			renewed = append(renewed, r)
		}
	}
	return renewed, left
}

// failure hands an event over, which has to fail, and returns type and message.
func (fn *function) failure(event string) (kind, message string) {
	fn.t.Helper()
	fn.events <- event
	a := fn.next()
	var e struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || !strings.HasSuffix(a.path, "/error") {
		fn.t.Fatalf("%s of %s: %v: %s", a.path, event, err, a.body)
	}
	return e.ErrorType, e.ErrorMessage
}

// watch reads what is in the function's directory until the returned function is
// called.
func (fn *function) watch() (end func() map[string]string) {
	seen := make(map[string]string) // read when done
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			files, err := filepath.Glob(filepath.Join(fn.tmp, "*", "*"))
			if err != nil {
				fn.t.Error(err)
			}
			for _, name := range files {
				if text, err := os.ReadFile(name); err == nil && len(text) > 0 { // else it is gone, or not yet written
					seen[name] = string(text)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	return func() map[string]string {
		close(stop)
		done.Wait()
		return seen
	}
}
