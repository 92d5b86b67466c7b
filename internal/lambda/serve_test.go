// SPDX-License-Identifier: Apache-2.0

package lambda_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Lambda is a service of other people's: the server here speaks its Runtime API, and of
// its Extensions API what asks for SIGTERM, as they are documented.

// An invocation is an event, and how long it may take; zero is a minute.
type invocation struct {
	event   string
	timeout time.Duration
}

// A report is what a function said: of an invocation, or of its start.
type report struct {
	path, kind string // of the URL, and of the header Lambda-Runtime-Function-Error-Type
	body       string
}

// An api is the server. Invocations are handed out in turn, and then none is.
type api struct {
	*httptest.Server
	registered chan string // names of extensions
	reports    chan report
	deadlines  chan int64 // of invocations, in Unix milliseconds
}

func newAPI(t *testing.T, invocations ...invocation) *api {
	t.Helper()
	a := &api{registered: make(chan string, 1), reports: make(chan report, len(invocations)+1), deadlines: make(chan int64, len(invocations))}
	queue := make(chan int, len(invocations))
	for i := range invocations {
		queue <- i
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, r *http.Request) {
		a.registered <- r.Header.Get("Lambda-Extension-Name")
		w.Header().Set("Lambda-Extension-Identifier", "one")
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case i := <-queue:
			timeout := invocations[i].timeout
			if timeout == 0 {
				timeout = time.Minute
			}
			deadline := time.Now().Add(timeout).UnixMilli()
			a.deadlines <- deadline
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprintf("id-%d", i))
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(deadline, 10))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:keyturn")
			_, _ = io.WriteString(w, invocations[i].event)
		}
	})
	mux.HandleFunc("POST /2018-06-01/runtime/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the process ended over it, as in TestStop
		}
		a.reports <- report{strings.TrimPrefix(r.URL.Path, "/2018-06-01/runtime/"), r.Header.Get("Lambda-Runtime-Function-Error-Type"), string(body)}
		w.WriteHeader(http.StatusAccepted)
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

// start starts the function as a process, which is killed when the test ends.
func (a *api) start(t *testing.T, which string) (cmd *exec.Cmd, stderr *bufio.Reader) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+which, "AWS_LAMBDA_RUNTIME_API="+a.Listener.Addr().String(),
		"AWS_SECRET_ACCESS_KEY="+secretKey, "HTTP_PROXY=http://192.0.2.1:1")
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(pipe)
}

// wait ends with what is left in the log of the process, and its status.
func wait(t *testing.T, cmd *exec.Cmd, stderr io.Reader) (log string, status int) {
	t.Helper()
	text, err := io.ReadAll(stderr)
	if err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the status tells
	if bytes.Contains(text, []byte(secretKey)) || bytes.Contains(text, []byte("MC4CAQ")) {
		t.Errorf("the log tells a secret: %s", text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func (a *api) next(t *testing.T) report {
	t.Helper()
	select {
	case r := <-a.reports:
		return r
	case <-time.After(time.Minute):
		t.Fatal("the function reports nothing")
		return report{}
	}
}

func checkError(t *testing.T, got report, path, kind string, parts ...string) {
	t.Helper()
	var e struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal([]byte(got.body), &e); err != nil {
		t.Errorf("%s with %s: %v", got.path, got.body, err)
	}
	if got.path != path || e.ErrorType != kind {
		t.Errorf("%s of type %q, want %s of %q: %s", got.path, e.ErrorType, path, kind, e.ErrorMessage)
	}
	for _, part := range parts {
		if !strings.Contains(e.ErrorMessage, part) {
			t.Errorf("the message %q has no %q", e.ErrorMessage, part)
		}
	}
	for _, secret := range []string{secretKey, "MC4CAQ", "hunter2"} {
		if strings.Contains(got.body, secret) {
			t.Errorf("the error tells the secret %s: %s", secret, got.body)
		}
	}
}

func TestServe(t *testing.T) {
	const scheduled = `{"version":"0","id":"cdc73f9d","detail-type":"Scheduled Event","source":"aws.scheduler","time":"2027-01-31T12:00:00Z","resources":[],"detail":{}}`
	cases := []struct {
		invocation
		kind string // of the error; empty is none
		want []string
	}{
		{invocation: invocation{event: scheduled}, want: []string{`{"for":"0s","max":0}`}},
		{invocation: invocation{event: `{"max":1}`}, kind: "Keyturn.PassFailed", want: []string{"issuer: https://[redacted]@ca.example.com refused"}},
		{invocation: invocation{event: `{"max":20,"for":"2m","resources":{}}`}, want: []string{`{"for":"2m0s","max":20}`}},
		{invocation: invocation{event: ""}, want: []string{`{"for":"0s","max":0}`}},
		{invocation: invocation{event: "null"}, want: []string{`{"for":"0s","max":0}`}},
		{invocation: invocation{`{"max":2}`, time.Second / 2}, kind: "Keyturn.PassTimedOut", want: []string{"longer timeout", "deadline exceeded"}},
		{invocation: invocation{event: `{"max":4}`}, kind: "Keyturn.PassFailed", want: []string{"chan int"}},
		{invocation: invocation{event: `{"max"`}, kind: "Keyturn.EventMalformed", want: []string{"not a JSON object"}},
		{invocation: invocation{event: `[1]`}, kind: "Keyturn.EventMalformed", want: []string{"not a JSON object"}},
		{invocation: invocation{event: `{"max":"20"}`}, kind: "Keyturn.EventMalformed", want: []string{`"max" is a string`}},
		{invocation: invocation{event: `{"max":1.5}`}, kind: "Keyturn.EventMalformed", want: []string{`"max" is a number 1.5`}},
		{invocation: invocation{event: `{"max":0}`}, kind: "Keyturn.EventMalformed", want: []string{`"max" is 0`, "1 or more"}},
		{invocation: invocation{event: `{"for":120}`}, kind: "Keyturn.EventMalformed", want: []string{`"for" is a number`}},
		{invocation: invocation{event: `{"for":"soon"}`}, kind: "Keyturn.EventMalformed", want: []string{`"for" is "soon"`, `"2m"`}},
		{invocation: invocation{event: `{"for":"-2m"}`}, kind: "Keyturn.EventMalformed", want: []string{`"for" is "-2m"`}},
		{invocation: invocation{event: `{}`}, want: []string{`{"for":"0s","max":0}`}}, // it serves on
	}
	var invocations []invocation
	for _, c := range cases {
		invocations = append(invocations, c.invocation)
	}
	a := newAPI(t, invocations...)
	cmd, stderr := a.start(t, "serve")
	for i, c := range cases {
		got := a.next(t)
		if c.kind != "" {
			checkError(t, got, fmt.Sprintf("invocation/id-%d/error", i), c.kind, c.want...)
		} else if want := (report{path: fmt.Sprintf("invocation/id-%d/response", i), body: c.want[0]}); got != want {
			t.Errorf("%s: the report is %+v, want %+v", c.event, got, want)
		}
	}
	select {
	case <-a.registered:
	default:
		t.Error("nothing asks Lambda for SIGTERM")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if log, status := wait(t, cmd, stderr); status != 0 {
		t.Errorf("after SIGTERM the status is %d, want 0:\n%s", status, log)
	}
}

// A pass ends a second before Lambda would kill it.
func TestReserve(t *testing.T) {
	a := newAPI(t, invocation{event: `{"max":5}`})
	cmd, stderr := a.start(t, "serve")
	got, want := a.next(t).body, strconv.FormatInt(<-a.deadlines-1000, 10)
	if got != want {
		t.Errorf("the pass has until %s, want %s", got, want)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait(t, cmd, stderr)
}

// SIGTERM ends the pass that runs, and then the process, with status 0.
func TestStop(t *testing.T) {
	a := newAPI(t, invocation{event: `{"max":2}`})
	cmd, stderr := a.start(t, "serve")
	for line := ""; !strings.Contains(line, "waiting"); {
		var err error
		if line, err = stderr.ReadString('\n'); err != nil {
			t.Fatalf("the pass does not begin: %v", err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if log, status := wait(t, cmd, stderr); status != 0 || !strings.Contains(log, "ended") {
		t.Errorf("after SIGTERM the status is %d, want 0 and the pass ended:\n%s", status, log)
	}
}

// A panic is reported, and ends the process, so that Lambda starts another.
func TestPanic(t *testing.T) {
	a := newAPI(t, invocation{event: `{"max":3}`}, invocation{})
	cmd, stderr := a.start(t, "serve")
	checkError(t, a.next(t), "invocation/id-0/error", "Keyturn.PassPanicked", "panic: at [redacted]")
	log, status := wait(t, cmd, stderr)
	if status != 1 || !strings.Contains(log, "lambda_test.pass") {
		t.Errorf("after a panic the status is %d, want 1 and a stack:\n%s", status, log)
	}
}

func TestReportStart(t *testing.T) {
	a := newAPI(t)
	cmd, stderr := a.start(t, "start")
	got := a.next(t)
	checkError(t, got, "init/error", "Keyturn.StartFailed", "no identity: [redacted]")
	if got.kind != "Keyturn.StartFailed" {
		t.Errorf("the header has the type %q", got.kind)
	}
	if log, status := wait(t, cmd, stderr); status != 1 {
		t.Errorf("the status is %d, want 1: %s", status, log)
	}
}

// Without the Runtime API there is nothing to serve: the process ends.
func TestNoAPI(t *testing.T) {
	a := newAPI(t)
	a.Close()
	cmd, stderr := a.start(t, "serve")
	if log, status := wait(t, cmd, stderr); status != 1 || !strings.Contains(log, "next invoke") {
		t.Errorf("the status is %d, want 1 and why:\n%s", status, log)
	}
	cmd, stderr = a.start(t, "start")
	if log, status := wait(t, cmd, stderr); status != 3 || !strings.Contains(log, "reporting that the start failed") {
		t.Errorf("the status is %d, want 3 and why:\n%s", status, log)
	}
}
