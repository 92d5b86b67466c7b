// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// A proxy stands before the emulator, sees every request and can spoil it.
type proxy struct {
	*httptest.Server

	behind string // the emulator

	mu    sync.Mutex
	spoil func(request) fault // guarded by mu; nil is never
	seen  []request           // guarded by mu
}

// A request is what was asked for: an operation such as "GetItem", its parameters
// and, where it was answered, what it cost.
type request struct {
	operation string
	body      map[string]any
	units     float64
}

// A fault is what happens to a request.
type fault int

const (
	none        fault = iota
	throttled         // refused: too many
	broken            // refused: 500
	unsent            // the connection breaks before the emulator has it
	lost              // the connection breaks before its answer is there
	stale             // answered with no items, as by a copy that is behind
	conflicting       // cancelled: another transaction is at it
	starved           // cancelled: too many
)

func newProxy(t *testing.T, s *dynamolocal.Server) *proxy {
	t.Helper()
	p := &proxy{behind: s.Endpoint}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// url returns the bus URL of a table behind the proxy.
func (p *proxy) url(direct string) string {
	return strings.Replace(direct, p.behind, p.URL, 1)
}

// spoils sets what happens to requests from now on.
func (p *proxy) spoils(f func(request) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = f
}

// requests returns what was asked for since the last call.
func (p *proxy) requests() []request {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req request
	_, req.operation, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if err := json.NewDecoder(r.Body).Decode(&req.body); err != nil {
		panic(err)
	}
	what := none
	p.mu.Lock()
	if p.spoil != nil {
		what = p.spoil(req)
	}
	p.mu.Unlock()
	switch what {
	case throttled:
		answer(w, http.StatusBadRequest, "ProvisionedThroughputExceededException", nil)
		return
	case broken:
		answer(w, http.StatusInternalServerError, "InternalServerError", nil)
		return
	case conflicting:
		answer(w, http.StatusBadRequest, "TransactionCanceledException", reasons("None", "TransactionConflict"))
		return
	case starved:
		answer(w, http.StatusBadRequest, "TransactionCanceledException", reasons("None", "ThrottlingError"))
		return
	case stale:
		answer(w, http.StatusOK, "", map[string]any{"Items": []any{}, "Count": 0})
		return
	case unsent:
		panic(http.ErrAbortHandler)
	}
	resp, body := p.forward(r, &req)
	p.mu.Lock()
	p.seen = append(p.seen, req)
	p.mu.Unlock()
	if what == lost {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body) // the client may have gone
}

// forward asks the emulator, and how much it cost.
func (p *proxy) forward(r *http.Request, req *request) (*http.Response, []byte) {
	req.body["ReturnConsumedCapacity"] = "TOTAL"
	sent, err := json.Marshal(req.body)
	if err != nil {
		panic(err)
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, p.behind, bytes.NewReader(sent))
	if err != nil {
		panic(err)
	}
	for _, h := range []string{"X-Amz-Target", "Content-Type", "Authorization", "X-Amz-Date"} {
		out.Header.Set(h, r.Header.Get(h))
	}
	resp, err := http.DefaultClient.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone, or the emulator is down
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.units = units(body)
	return resp, body
}

// units sums what an answer says of its costs.
func units(body []byte) float64 {
	type cost struct{ CapacityUnits float64 }
	var many struct{ ConsumedCapacity []cost }
	var one struct{ ConsumedCapacity cost }
	if json.Unmarshal(body, &many) == nil {
		var sum float64
		for _, c := range many.ConsumedCapacity {
			sum += c.CapacityUnits
		}
		return sum
	}
	if json.Unmarshal(body, &one) == nil {
		return one.ConsumedCapacity.CapacityUnits
	}
	return 0
}

// answer sends a body, or an error of a kind with more about it.
func answer(w http.ResponseWriter, status int, kind string, body map[string]any) {
	if kind != "" {
		if body == nil {
			body = make(map[string]any)
		}
		body["__type"], body["message"] = "com.amazonaws.dynamodb.v20120810#"+kind, "spoilt"
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

func reasons(codes ...string) map[string]any {
	list := make([]any, len(codes))
	for i, code := range codes {
		list[i] = map[string]any{"Code": code}
	}
	return map[string]any{"CancellationReasons": list}
}
